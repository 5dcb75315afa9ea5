"""The shipped profiles that are made from public measurements, and the command that makes them again.

    python -m fluidgate.calibration.catalogue DATA

`DATA` is the folder with the three files of measurements; none is shipped. Files that hold the same already are not
written. How the columns are read is in `aiconfigurator`, `vidur` and `llm_serving_sim`, and in each profile's `notes`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluidgate.calibration.batch_calibration import calibrate_batches
from fluidgate.calibration.measurements import Measurements, read_measurements
from fluidgate.errors import FluidgateError
from fluidgate.profiles import Profile, dump_profile
from fluidgate.profiles.facts import CARDS, LANGUAGE_MODELS
from fluidgate.toml_file import write_whole

AICONFIGURATOR = "aiconfigurator_tau.csv"
VIDUR = "vidur_a100_llama2_70b_tp2_tau.csv"
LLM_SERVING_SIM = "rtx4090_llama31_8b_tau_wide.csv"
MADE = "Made by python -m fluidgate.calibration.catalogue."


@dataclass(frozen=True)
class Served:
    """A model on a card or on a group of them.

    Attributes:
        card, model: by their names in `fluidgate.profiles.facts`.
        gpus: of the tensor-parallel group.
        purpose: what its profile is for.
        dtype: of weights and KV.
    """

    card: str
    model: str
    gpus: int
    purpose: str
    dtype: str = "bf16"

    @property
    def name(self) -> str:
        return f"{self.card}/{self.model}" + (f"-tp{self.gpus}" if self.gpus > 1 else "")

    @property
    def epsilon(self) -> float:
        """Seconds to read a token's KV once from the memory of the group: a roofline."""
        return self.kv_bytes / (self.gpus * CARDS[self.card].bandwidth)

    @property
    def kv_bytes(self) -> int:
        return LANGUAGE_MODELS[self.model].kv_bytes_per_token(self.dtype)

    def described(self, profile: Profile, **more: object) -> Profile:
        """The profile with what is known of card and model."""
        card, model = CARDS[self.card], LANGUAGE_MODELS[self.model]
        known = {
            "name": self.name,
            "purpose": self.purpose,
            "model": model.title,
            "dtype": self.dtype,
            "gpu": card.title,
            "gpus": self.gpus,
            "kv_bytes_per_token": float(self.kv_bytes),
            "weights_bytes": float(model.weights_bytes(self.dtype)),
            "memory_bytes": float(round(self.gpus * card.memory)),
        }
        return profile.model_copy(update={**known, **more})


VLLM = (
    Served("a100-80gb", "llama-3.1-8b", 1, "chat where A100s are at hand"),
    Served("a100-80gb", "llama-3.1-70b", 4, "a large model on half a server"),
    Served("a100-80gb", "qwen3-8b", 1, "chat where A100s are at hand"),
    Served("a100-80gb", "qwen3-32b", 2, "a mid-size model on two cards"),
    Served("h100", "llama-3.1-8b", 1, "a first plan, a first size"),
    Served("h100", "llama-3.1-70b", 4, "a large model on half a server"),
    Served("h100", "qwen3-8b", 1, "chat on the usual card"),
    Served("h100", "qwen3-32b", 2, "a mid-size model on two cards"),
    Served("h100", "qwen3-30b-a3b", 1, "experts, few of them active"),
    Served("h200", "llama-3.1-8b", 1, "many requests, long contexts"),
    Served("h200", "llama-3.1-70b", 2, "a large model on two cards"),
    Served("b200", "llama-3.1-8b", 1, "low latency, the fastest card"),
    Served("l40s", "llama-3.1-8b", 1, "low cost, a card without HBM"),
)
"""What the file of AIConfigurator has under vLLM."""
GPU_COLUMN = {"a100-80gb": "a100_sxm", "h100": "h100_sxm", "h200": "h200_sxm", "b200": "b200_sxm", "l40s": "l40s"}
MODEL_COLUMN = {
    "llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama/Meta-Llama-3.1-70B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-32b": "Qwen/Qwen3-32B",
    "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
}
VLLM_VERSIONS = {"a100-80gb": "0.14.0"}
"""Where the operators were measured with another version than 0.24.0."""
PROMPT, OUTPUT = 2048, 256
"""Lengths that the file of AIConfigurator was evaluated at: its decodes have written half of their output."""

ON_A100S = Served("a100-80gb", "llama2-70b", 2, "comparison with work of 2024", "fp16")
ON_RTX_4090 = Served("rtx4090", "llama-3.1-8b", 1, "serving at home, short of memory")


def catalogue(data: str | Path) -> Iterator[Profile]:
    """The profiles made from the measurements in a folder.

    Raises:
        FluidgateError: a file is missing, or is not the one these profiles were made from.
    """
    for served in VLLM:
        yield aiconfigurator(Path(data) / AICONFIGURATOR, served)
    yield vidur(Path(data) / VIDUR)
    yield llm_serving_sim(Path(data) / LLM_SERVING_SIM)


def aiconfigurator(path: Path, served: Served) -> Profile:
    """A model under vLLM from iteration times that were interpolated from AIConfigurator's operator tables, ms.

    Columns `B` (decodes), `C` (chunk) and `tau_ms`, at 2,048 prompt and 256 output tokens.
    """
    where = {"gpu": GPU_COLUMN[served.card], "backend": "vllm", "tp": str(served.gpus)}
    columns = {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms"}
    rows = read_measurements(path, columns, unit="ms", where={**where, "model": MODEL_COLUMN[served.model]})
    return served.described(
        _table(rows.with_context(PROMPT + OUTPUT // 2), served.kv_bytes, served.epsilon),
        engine="vLLM",
        engine_version=VLLM_VERSIONS.get(served.card, "0.24.0"),
        measured="2026",
        contexts=(PROMPT, PROMPT + OUTPUT),
        source="operator tables of aiconfigurator-core 0.12.0 (ai-dynamo, Apache-2.0)",
        notes="An estimate: measured operators added up to iteration times, not one run of an engine, whose own "
        f"overhead comes on top. One context, {PROMPT} prompt and {OUTPUT} output tokens; {ROOFLINE} {MADE}",
    )


ROOFLINE = (
    "epsilon, for others, is the KV bytes of a token over the memory bandwidth of the group, less than real kernels "
    "take. Chunks far into a long prompt take longer than the table says."
)


def vidur(path: Path) -> Profile:
    """Llama 2 70B on two A100s, from Vidur's profile of its operators, ms.

    Columns `B` (decodes, each with `kv` tokens of context), `C` (chunk), `tau_ms`. Nothing was measured without either;
    that corner of the table takes the time of the least batch alone, as a table does below its least batch.
    """
    columns = {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms", "context": "kv"}
    rows = read_measurements(path, columns, unit="ms")
    solo = rows.select(rows.solo)
    idle = solo.seconds[int(np.argmin(solo.batch_size))]
    full = Measurements(
        np.append(rows.batch_size, 0),
        np.append(rows.chunk_size, 0),
        np.append(rows.seconds, idle),
        rows.source,
        np.append(rows.context, rows.context[0]),
    )
    context = int(rows.context.max())
    return ON_A100S.described(
        _table(full, ON_A100S.kv_bytes, ON_A100S.epsilon),
        engine="Sarathi-Serve",
        engine_version="of Vidur",
        measured="2024",
        contexts=(context, context),
        source="profiled operators of microsoft/vidur (MIT)",
        notes="An estimate: measured operators added up to iteration times, not one run of an engine. "
        f"One context, {context} tokens a decode; {ROOFLINE} {MADE}",
    )


def llm_serving_sim(path: Path) -> Profile:
    """Llama 3.1 8B on an RTX 4090, from the layer profile of LLMServingSim, ms.

    Columns `B`, `C`, `tau_ms`, `kv_decode` (context of each decode) and `kv_read_before` (of the prompt, before the
    chunk), all of which the table has.
    """
    columns = {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms", "context": "kv_decode"}
    rows = read_measurements(path, {**columns, "read_before": "kv_read_before"}, unit="ms")
    return ON_RTX_4090.described(
        calibrate_batches(rows, table=True, name="unnamed").profile,
        engine="vLLM",
        engine_version="0.19.0",
        measured="2026-08",
        contexts=(int(rows.context[rows.batch_size > 0].min()), int(rows.context[~rows.solo].max())),
        source="measured layers of casys-kaist/LLMServingSim (MIT)",
        notes="Times of kernels, over chunk, decodes, context and tokens read before: the engine's own overhead, "
        f"0.3 ms an iteration or less in a run, comes on top. {MADE}",
    )


def _table(rows: Measurements, kv_bytes: int, epsilon: float) -> Profile:
    """A profile that holds the rows' own times, nameless; none of it is an estimate of what a prompt's chunks read."""
    made = calibrate_batches(
        rows, kv_bytes_per_token=kv_bytes, memory_bandwidth=kv_bytes / epsilon, table=True, name="unnamed"
    ).profile
    return made.model_copy(update={"iteration": made.iteration.changed(zeta=0.0)})


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
