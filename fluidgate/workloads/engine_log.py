"""vLLM's own log, as `vllm serve` prints it: the settings that it states, and its load by the second.

Known are the lines of 0.6 to 0.33, with any prefix that a shell, a container or a process puts before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import EngineModel
from fluidgate.packed_file import read_packed
from fluidgate.toml_file import fail, source_of

LOAD = np.dtype(
    [
        ("time", np.float64),  # s since the first of them
        ("engine", np.int64),  # -1: of all engines together, or of the only one
        ("prompt_rate", np.float64),  # tokens/s, over the time since the one before
        ("output_rate", np.float64),
        ("running", np.int64),  # requests
        ("waiting", np.int64),
        ("kv_share", np.float64),  # of the memory, 0 to 1
        ("prefix_hit_rate", np.float64),  # NaN where it is not told
    ]
)
"""A line of an engine's load."""

DAY = 86_400.0
YEAR = 366 * DAY
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WHEN = re.compile(r"\b(?:DEBUG|INFO|WARNING|ERROR) (\d\d-\d\d \d\d:\d\d:\d\d)\b")
STARTED = re.compile(r"Initializing an?(?: V[01])? LLM engine \(v([^)]+)\) with config: (.*)")
GIVEN = re.compile(r"(?:non-default args: \{|args: Namespace\()(.*)")
KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
KV_BLOCKS = re.compile(r"# (?:GPU|cuda) blocks: (\d+)")
BUDGET = re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(\d+)")
ASYNCHRONOUS = re.compile(r"Asynchronous scheduling is (enabled|disabled)")
THROUGHPUT = re.compile(
    r"(?:Engine (\d+): |\d+ Engines Aggregated: )?"
    r"Avg prompt throughput: ([\d.]+) tokens/s, Avg generation throughput: ([\d.]+) tokens/s, (.*)"
)
RUNNING = re.compile(r"Running: (\d+) reqs")
WAITING = re.compile(r"(?:Waiting|Pending): (\d+) reqs")
KV_SHARE = re.compile(r"KV cache usage: ([\d.]+)%")
HIT_RATE = re.compile(r"Prefix cache hit rate: ([\d.]+)%")
DEFAULT_BLOCK = 16


@dataclass(frozen=True)
class EngineSettings:
    """What the log states of an engine; None for what it does not.

    Attributes:
        version: of vLLM.
        model: its name or folder.
        dtype: of the weights, such as `bfloat16`.
        quantization, kv_cache_dtype: where they are not vLLM's defaults.
        tensor_parallel_size, pipeline_parallel_size, data_parallel_size: GPUs of an engine, and its ranks.
        enable_expert_parallel: whether experts are spread over all GPUs.
        max_num_seqs: the most requests in a batch.
        max_num_batched_tokens: tokens of an iteration.
        kv_tokens: that the KV memory of an engine (of the smallest rank) holds.
        kv_block: tokens of a block of it.
        enable_prefix_caching: whether prompts find what was read before.
        async_scheduling: whether a batch is composed while the one before it runs.
    """

    version: str | None = None
    model: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    data_parallel_size: int | None = None
    enable_expert_parallel: bool | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_tokens: int | None = None
    kv_block: int | None = None
    enable_prefix_caching: bool | None = None
    async_scheduling: bool | None = None

    @property
    def engine(self) -> EngineModel:
        """The table `[engine]` that it states; what it does not is left at the table's defaults."""
        keys: dict[str, Any] = {
            "max_batched_tokens": self.max_num_batched_tokens,
            "kv_tokens": self.kv_tokens,
            "prefix_caching": self.enable_prefix_caching,
            "async_scheduling": self.async_scheduling,
        }
        if self.kv_tokens is not None:
            keys["kv_block"] = self.kv_block
        return EngineModel(**{key: value for key, value in keys.items() if value is not None})

    @property
    def unsaid(self) -> tuple[str, ...]:
        """What a simulation of the engine needs and the log does not state."""
        needed = ("max_num_seqs", "max_num_batched_tokens", "kv_tokens", "async_scheduling")
        return tuple(key for key in needed if getattr(self, key) is None)

    @property
    def told(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class EngineLog:
    """A log of vLLM.

    Attributes:
        source: name of the file, without its folder.
        settings: what it states as the engine starts; of a log with several starts, of the last.
        series: its load, of dtype `LOAD`, in the order of the file.
    """

    source: str
    settings: EngineSettings
    series: NDArray[Any]

    def to_toml(self) -> str:
        """The tables `[gpu]` and `[engine]` of a scenario, as far as the log states them, under what else it says."""
        from tomlkit import comment, document, nl, table

        text = document()
        text.add(comment(f"{self.source}: {', '.join(f'{key} {value}' for key, value in self.settings.told.items())}"))
        if len(self.series):
            text.add(comment(self._most()))
        text.add(nl())
        sizes = {"batch_size": self.settings.max_num_seqs, "chunk_size": self.settings.max_num_batched_tokens}
        for name, keys in (("gpu", sizes), ("engine", self.settings.engine.model_dump(exclude_unset=True))):
            stated = {key: value for key, value in keys.items() if value is not None}
            if stated:
                found = table()
                found.update(stated)
                text[name] = found
        return text.as_string()

    def _most(self) -> str:
        seconds = np.ptp(self.series["time"])
        running, waiting, share = (self.series[name].max() for name in ("running", "waiting", "kv_share"))
        return f"in {seconds:.0f} s, at most: {running} requests running, {waiting} waiting, {share:.0%} of KV memory"

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        names = self.series.dtype.names or ()
        rows = [dict(zip(names, row, strict=True)) for row in self.series.tolist()]
        for row in rows:
            row["engine"] = None if row["engine"] < 0 else row["engine"]
            row["prefix_hit_rate"] = None if np.isnan(row["prefix_hit_rate"]) else row["prefix_hit_rate"]
        return {"file": self.source, "settings": asdict(self.settings), "series": rows}


def read_engine_log(path: str | Path) -> EngineLog:
    """Read what `vllm serve` printed, perhaps packed.

    Raises:
        FluidgateError: the file can't be read, or has no line of vLLM that is known.
    """
    text = COLOURS.sub("", read_packed(path, "a log of vLLM").decode(errors="replace"))
    lines = text.splitlines()
    settings = _settings(lines)
    series = np.array(list(_load(lines)), LOAD)
    if not settings.told and not len(series):
        reason = "no line of vLLM in it, such as 'GPU KV cache size: N tokens' or 'Avg prompt throughput: ...'"
        fail(source_of(path), [f"{reason}; give what `vllm serve` printed, from its start on"])
    if len(series):
        series["time"] -= series["time"][0]
    return EngineLog(Path(source_of(path)).name, settings, series)


def _settings(lines: list[str]) -> EngineSettings:
    found: dict[str, Any] = {}
    kinds = {field.name: str(field.type) for field in fields(EngineSettings)}
    blocks: int | None = None
    for line in lines:
        if given := GIVEN.search(line):
            found, blocks = dict(_keys(given[1], kinds)), None
        elif started := STARTED.search(line):
            found |= {**dict(_keys(started[2], kinds)), "version": started[1]}
        elif tokens := KV_TOKENS.search(line):
            found["kv_tokens"] = min(_whole(tokens[1]), found.get("kv_tokens", _whole(tokens[1])))
        elif counted := KV_BLOCKS.search(line):
            blocks = min(int(counted[1]), blocks or int(counted[1]))
        elif budget := BUDGET.search(line):
            found["max_num_batched_tokens"] = int(budget[1])
        elif how := ASYNCHRONOUS.search(line):
            found["async_scheduling"] = how[1] == "enabled"
    found["kv_block"] = found.get("block_size")
    if blocks is not None and "kv_tokens" not in found:
        found["kv_tokens"] = blocks * (found["kv_block"] or DEFAULT_BLOCK)
    if found.get("kv_cache_dtype") == "auto":
        del found["kv_cache_dtype"]
    return EngineSettings(**{key: value for key, value in found.items() if key in kinds})


READ: dict[str, Callable[[str], Any]] = {
    "int | None": lambda text: int(text) if text.isdecimal() else None,
    "bool | None": lambda text: {"True": True, "False": False}.get(text),
    "str | None": lambda text: text.strip("'\"").removeprefix("torch.") if text != "None" else None,
}


def _keys(text: str, kinds: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """The settings among the keys of a configuration, `key=value` or `'key': value`, that have a value."""
    for key, kind in {**kinds, "block_size": "int | None"}.items():
        if found := re.search(rf"(?<![\w])'?{key}'?(?:=|: )('[^']*'|[\w./-]+)", text):
            value = READ[kind](found[1])
            if value is not None:
                yield key, value


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _load(lines: list[str]) -> Iterator[tuple[Any, ...]]:
    """The lines of load that say when they are of; the year is not in them, so times go on over its end."""
    last, years = -np.inf, 0.0
    for line in lines:
        found, when = THROUGHPUT.search(line), WHEN.search(line)
        if not (found and when):
            continue
        engine, prompt, output, rest = found.groups()
        running, waiting, share = (pattern.search(rest) for pattern in (RUNNING, WAITING, KV_SHARE))
        if not (running and share):
            continue
        time = (datetime.strptime(f"2000-{when[1]}", "%Y-%m-%d %H:%M:%S") - datetime(2000, 1, 1)).total_seconds()
        if time + years < last - YEAR / 2:
            years += YEAR
        last = time + years
        hits = HIT_RATE.search(rest)
        yield (
            last,
            -1 if engine is None else int(engine),
            float(prompt),
            float(output),
            int(running[1]),
            0 if waiting is None else int(waiting[1]),
            float(share[1]) / 100,
            np.nan if hits is None else float(hits[1]) / 100,
        )
