"""The shipped profiles that are fitted to public measurements, and the command that makes them again.

    python -m fluidgate.calibration.catalogue DATA

`DATA` is the folder with the two files of measurements; neither is shipped. Files that hold the same already are not
written. How the columns are read is in `splitwise` and `aiconfigurator`, and in each profile's `notes`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fluidgate.calibration.calibration import Calibration, calibrate, low_or_high, place
from fluidgate.calibration.measurements import Measurements, read_measurements
from fluidgate.errors import FluidgateError
from fluidgate.profiles import Profile, dump_profile
from fluidgate.toml_file import write_whole

SPLITWISE = "splitwise_perf_model.csv"
AICONFIGURATOR = "aiconfigurator_tau.csv"
MADE = "Made by python -m fluidgate.calibration.catalogue."

LLAMA2_70B = {
    ("a100-80gb", 2): 32,
    ("a100-80gb", 4): 64,
    ("a100-80gb", 8): 64,
    ("h100-80gb", 2): 32,
    ("h100-80gb", 4): 64,
    ("h100-80gb", 8): 64,
}
"""Hardware and tensor-parallel size, with the greatest batch that was served whole.

On two GPUs the prompts of a batch of 64 took less than a sixth of the time of those of 32: it was not one batch.
"""
LONGEST_PROMPT = 2048
PROMPT_OF_BATCHES, OUTPUT_OF_BATCHES = 512, 128
"""The only lengths that were measured at every batch size."""

VLLM = (
    ("a100_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    ("a100_sxm", "meta-llama/Meta-Llama-3.1-70B", 4),
    ("a100_sxm", "Qwen/Qwen3-8B", 1),
    ("a100_sxm", "Qwen/Qwen3-32B", 2),
    ("h100_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    ("h100_sxm", "meta-llama/Meta-Llama-3.1-70B", 4),
    ("h100_sxm", "Qwen/Qwen3-8B", 1),
    ("h100_sxm", "Qwen/Qwen3-32B", 2),
    ("h100_sxm", "Qwen/Qwen3-30B-A3B", 1),
    ("h200_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    ("h200_sxm", "meta-llama/Meta-Llama-3.1-70B", 2),
    ("b200_sxm", "meta-llama/Meta-Llama-3.1-8B", 1),
    ("l40s", "meta-llama/Meta-Llama-3.1-8B", 1),
)
"""GPU, model and tensor-parallel size, as the file names them."""
FOLDERS = {
    "a100-80gb": ("a100-80gb", "NVIDIA A100-80GB"),
    "h100-80gb": ("h100", "NVIDIA H100-80GB"),
    "a100_sxm": ("a100-80gb", "NVIDIA A100 SXM"),
    "h100_sxm": ("h100", "NVIDIA H100 SXM"),
    "h200_sxm": ("h200", "NVIDIA H200 SXM"),
    "b200_sxm": ("b200", "NVIDIA B200 SXM"),
    "l40s": ("l40s", "NVIDIA L40S"),
}


def catalogue(data: str | Path) -> Iterator[Profile]:
    """The profiles made from the measurements in a folder.

    Raises:
        FluidgateError: a file is missing, or is not the one these profiles were made from.
    """
    for (hardware, parallel), largest in LLAMA2_70B.items():
        yield splitwise(Path(data) / SPLITWISE, hardware, parallel, largest)
    for gpu, model, parallel in VLLM:
        yield aiconfigurator(Path(data) / AICONFIGURATOR, gpu, model, parallel)


def splitwise(path: Path, hardware: str, parallel: int, largest: int) -> Profile:
    """Llama-2-70B from Splitwise's measurements of whole requests, times in ms.

    Mixed: `prompt_time` at `batch_size` 1 over `prompt_size` as the chunk, 256 to 2,048 tokens. Solo: `token_time` by
    `batch_size` up to `largest`, at 512 prompt and 128 output tokens. No prompt was measured beside decodes, so every
    batch size has the same line.
    """
    machine = {"model": "llama2-70b", "hardware": hardware, "tensor_parallel": str(parallel)}
    columns = {"chunk_size": "prompt_size", "seconds": "prompt_time"}
    prompts = read_measurements(path, columns, unit="ms", where={**machine, "batch_size": "1"})
    prompts = prompts.select(prompts.chunk_size <= LONGEST_PROMPT)
    lengths = {"prompt_size": str(PROMPT_OF_BATCHES), "token_size": str(OUTPUT_OF_BATCHES)}
    columns = {"chunk_size": "prompt_size", "seconds": "token_time"}
    tokens = read_measurements(path, columns, unit="ms", where={**machine, **lengths})
    tokens = tokens.select(tokens.batch_size <= largest)
    made = calibrate(
        _beside(prompts, tokens),
        name=_name(hardware, "llama2-70b", parallel),
        model="Llama-2-70B",
        gpu=_gpus(hardware, parallel),
        source="Splitwise, perf_model.csv of Mutinifni/splitwise-sim (MIT)",
    )
    return _noted(
        made,
        f"The mixed time is that of a whole prompt of C tokens alone (prompt_time at batch size 1, C up to "
        f"{LONGEST_PROMPT}), the solo time token_time by batch size at {PROMPT_OF_BATCHES} prompt and "
        f"{OUTPUT_OF_BATCHES} output tokens. No prompt was measured beside decodes: alpha and beta are those of an "
        "iteration without decodes, too low for one with many, and the same at every batch size. The file does not "
        "name the engine.",
    )


def aiconfigurator(path: Path, gpu: str, model: str, parallel: int) -> Profile:
    """A model under vLLM from iteration times that were interpolated from aiconfigurator's operator tables, ms.

    Columns `B` (decodes), `C` (chunk) and `tau_ms`, at 2,048 prompt and 256 output tokens.
    """
    where = {"gpu": gpu, "backend": "vllm", "model": model, "tp": str(parallel)}
    columns = {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms"}
    short = model.split("/")[-1].removeprefix("Meta-")
    made = calibrate(
        read_measurements(path, columns, unit="ms", where=where),
        name=_name(gpu, short.lower(), parallel),
        model=short.replace("-3.1-", " 3.1 ").replace("-", " ", 1) if short.startswith("Llama") else short,
        gpu=_gpus(gpu, parallel),
        engine="vLLM",
        source="operator tables of aiconfigurator-core 0.12.0 (ai-dynamo, Apache-2.0)",
    )
    return _noted(
        made,
        "An estimate: measured operators added up to iteration times, not one run of an engine, at a context of 2048 "
        "prompt and 256 output tokens; longer contexts take longer.",
    )


def write_catalogue(data: str | Path, folder: str | Path) -> list[Path]:
    """Write the profiles under `folder`, each to `GPU/MODEL.toml`; what differs is written and returned.

    Raises:
        FluidgateError: as `catalogue`, or a file cannot be written.
    """
    written = []
    for profile in catalogue(data):
        path = Path(folder) / f"{profile.name}.toml"
        text = dump_profile(profile)
        if path.exists() and path.read_text("utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
        written.append(path)
    return written


def _beside(prompts: Measurements, tokens: Measurements) -> Measurements:
    """The prompt times as mixed iterations at each batch size that has token times, which are solo iterations."""
    sizes = np.unique(tokens.batch_size)
    return Measurements(
        batch_size=np.concatenate([np.repeat(sizes, len(prompts)), tokens.batch_size]),
        chunk_size=np.concatenate([np.tile(prompts.chunk_size, len(sizes)), np.zeros(len(tokens), dtype=np.int64)]),
        seconds=np.concatenate([np.tile(prompts.seconds, len(sizes)), tokens.seconds]),
        source=prompts.source,
    )


def _name(gpu: str, model: str, parallel: int) -> str:
    return f"{FOLDERS[gpu][0]}/{model}" + (f"-tp{parallel}" if parallel > 1 else "")


def _gpus(gpu: str, parallel: int) -> str:
    return f"{parallel}x {FOLDERS[gpu][1]}, tensor parallel" if parallel > 1 else FOLDERS[gpu][1]


def _noted(made: Calibration, reading: str) -> Profile:
    """The profile, its notes saying how the columns were read and how far the line lies from the data."""
    largest, notes = made.largest_deviation, [reading]
    notes.append(f"Within the chunk range the line lies at most {low_or_high(largest.relative)}, at {place(largest)}.")
    below = min(made.below_min_chunk, key=lambda d: d.relative, default=None)
    if below is not None and below.relative < -0.1:
        notes.append(f"Below that range it lies up to {low_or_high(below.relative)}, at {place(below)}.")
    return made.profile.model_copy(update={"notes": " ".join([*notes, MADE])})


def main(arguments: list[str]) -> int:
    """Write the shipped profiles from the folder that the one argument names; 2 for bad input."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m fluidgate.calibration.catalogue DATA\n")
        return 2
    try:
        written = write_catalogue(arguments[0], Path(__file__).parents[1] / "profiles")
    except FluidgateError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for path in written:
        sys.stdout.write(f"wrote {path.parent.name}/{path.name}\n")
    if not written:
        sys.stdout.write("nothing to write: the shipped profiles are those of the data\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
