"""A llama.cpp server in a process of its own: `python -m tests.gateway.llama_server MODEL SLOT_FOLDER SLOTS`.

It prints its address when it is ready, and ends when its standard input does.
"""

from __future__ import annotations

import sys

import xllamacpp


def main(model: str, slot_folder: str, slots: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.slot_save_path = slot_folder
    params.n_parallel = int(slots)
    params.n_ctx = 2048 * int(slots)
    params.n_batch = params.n_ubatch = 128
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 4
    params.port = 0
    params.endpoint_metrics = params.endpoint_slots = params.endpoint_props = True
    params.ui = params.warmup = params.fit_params = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
