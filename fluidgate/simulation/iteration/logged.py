"""A real engine's run, request by request, replayed in the iteration model, and how far the two lie apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluidgate.model import Array
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.toml_file import fail, read_text
from fluidgate.workloads.traces import VLLM, Lengths, numbers_of, read_jsonl

FIRST, LAST = "first_token_ts", "last_token_ts"


@dataclass(frozen=True)
class LoggedRun:
    """Requests in order of arrival, each with what became of it; arrays of shape (requests,).

    Attributes:
        arrival: s since the first arrival.
        first_token, last_token: s on the same clock.
        prompt, output: tokens.
        preemptions: of all requests; None where the log does not say.
    """

    arrival: Array
    first_token: Array
    last_token: Array
    prompt: Lengths
    output: Lengths
    preemptions: int | None = None

    @property
    def times(self) -> dict[str, Array]:
        """TTFT, TPOT (of requests with more than one token) and latency, s."""
        several = self.output > 1
        return {
            "TTFT": self.first_token - self.arrival,
            "TPOT": (self.last_token - self.first_token)[several] / (self.output[several] - 1),
            "latency": self.last_token - self.arrival,
        }

    @property
    def throughput(self) -> float:
        """Output tokens/s from the first arrival to the last token."""
        return float(self.output.sum() / self.last_token.max())


@dataclass(frozen=True)
class Agreement:
    """One statistic of a quantity, measured and simulated; seconds, or tokens/s for the throughput."""

    quantity: str
    statistic: str
    measured: float
    simulated: float

    @property
    def relative(self) -> float:
        """Simulated over measured, less 1."""
        return self.simulated / self.measured - 1.0


def read_logged_run(path: str | Path) -> LoggedRun:
    """Read a log of vLLM: JSONL with `queued_ts`, `first_token_ts`, `last_token_ts` (s), `input_toks`, `output_toks`.

    Raises:
        FluidgateError: the file is missing or wrong; the message names file, line and mend.
    """
    source = str(path)
    text = read_text(path, "a log of an engine's requests").replace("\r\n", "\n")
    table = read_jsonl(text.split("\n"), [*VLLM.columns, FIRST, LAST], source)
    if table.empty:
        fail(source, ["empty; give a log with requests"])
    columns = {name: numbers_of(table[name], source) for name in table.columns}
    for wrong, what in (
        (columns[FIRST] < columns[VLLM.time], f"{FIRST}: before the request was queued"),
        (columns[LAST] < columns[FIRST], f"{LAST}: before the first token"),
        (columns[VLLM.prompt] < 1, f"{VLLM.prompt}: must be at least 1"),
        (columns[VLLM.output] < 1, f"{VLLM.output}: must be at least 1"),
    ):
        if wrong.any():
            fail(source, [f"line {table.index[int(wrong.argmax())]}: {what}; correct it"])
    order = np.argsort(columns[VLLM.time], kind="stable")
    first, last, queued = (columns[name][order] for name in (FIRST, LAST, VLLM.time))
    prompt, output = (columns[name][order].astype(np.int64) for name in (VLLM.prompt, VLLM.output))
    return LoggedRun(queued - queued[0], first - queued[0], last - queued[0], prompt, output)


def replayed(run: LoggedRun, engine: Engine) -> LoggedRun:
    """The same requests through one GPU of the iteration model.

    Raises:
        FluidgateError: the engine needs a policy, or its memory can't hold a request.
    """
    from fluidgate.simulation.iteration.run import Run, run_placed
    from fluidgate.workloads.streams import REQUEST

    requests = np.zeros(len(run.arrival), REQUEST)
    requests["arrival"], requests["prompt"], requests["output"] = run.arrival, run.prompt, run.output
    requests["patience"] = np.inf
    logs: list[Any] = []
    measured = run_placed([requests], engine, Run(1, 1), take_log=logs.append)
    if measured.rejections.sum() > 0:
        fail("KV memory", [f"{measured.rejections.sum()} requests are longer than it; give more tokens"])
    log = np.sort(np.concatenate(logs), order="number")
    return LoggedRun(
        run.arrival, log["first_token"], log["last_token"], run.prompt, run.output, int(measured.preemptions.sum())
    )


def agreement(measured: LoggedRun, simulated: LoggedRun) -> Iterator[Agreement]:
    """Mean, p50, p90 and p99 of TTFT, TPOT and latency, and the throughput."""
    for quantity, times in measured.times.items():
        other = simulated.times[quantity]
        yield Agreement(quantity, "mean", float(times.mean()), float(other.mean()))
        for percent in (50, 90, 99):
            one, two = (float(np.quantile(each, percent / 100)) for each in (times, other))
            yield Agreement(quantity, f"p{percent}", one, two)
    yield Agreement("output throughput", "tokens/s", measured.throughput, simulated.throughput)
