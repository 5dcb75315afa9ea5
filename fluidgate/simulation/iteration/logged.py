"""A real engine's run, request by request, replayed in the iteration model, and how far the two lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.model import Array
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.engine import Engine
from fluidgate.toml_file import fail
from fluidgate.workloads.formats.format import Clock
from fluidgate.workloads.traces import MEASURED, Lengths, Trace, read_trace

if TYPE_CHECKING:
    from fluidgate.simulation.iteration.run import TakeSegments

Summary = Mapping[tuple[str, str], float | None]
"""Statistics of a run by quantity and statistic: mean, p50, p90, p95, p99 of TTFT, TPOT and latency, and the
throughput."""


THROUGHPUT = ("output throughput", "tokens/s")


@dataclass(frozen=True, repr=False)
class LoggedRun(Brief):
    """Requests in order of arrival, each with what became of it; arrays of shape (requests,).

    Attributes:
        arrival: s since the first arrival.
        first_token, last_token: s on the same clock.
        prompt, output: tokens.
        preemptions: of all requests; None where the log does not say.
        clock: whose times they are: `engine`, from its queue on, or `client`, front end included.
        scheduled: when the engine began with each, s on the same clock; None where the log does not say.
        sent: when each came to the front end, on a clock moved as in `Trace`; None where the log does not say.
    """

    arrival: Array
    first_token: Array
    last_token: Array
    prompt: Lengths
    output: Lengths
    preemptions: int | None = None
    clock: Clock = "engine"
    scheduled: Array | None = None
    sent: Array | None = None

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

    @property
    def summary(self) -> Summary:
        found: dict[tuple[str, str], float | None] = {}
        for quantity, times in self.times.items():
            found[quantity, "mean"] = float(times.mean()) if len(times) else None
            for percent in (50, 90, 95, 99):
                found[quantity, f"p{percent}"] = float(np.quantile(times, percent / 100)) if len(times) else None
        found[THROUGHPUT] = self.throughput
        return found

    def of_requests(self, chosen: NDArray[np.bool_]) -> LoggedRun:
        """Some of them alone; the preemptions of all are no longer theirs."""
        parts = ("arrival", "first_token", "last_token", "prompt", "output", "scheduled", "sent")
        taken: dict[str, Any] = {
            name: None if (column := getattr(self, name)) is None else column[chosen] for name in parts
        }
        return replace(self, preemptions=None, **taken)

    @staticmethod
    def of(traces: Sequence[Trace]) -> LoggedRun | None:
        """What became of the requests of traces played together; None where one of them does not say, or the clocks
        of some are an engine's and those of others a client's."""
        clocks = {each.clock for each in traces}
        if len(clocks) != 1 or (clock := clocks.pop()) is None:
            return None
        order = np.argsort(np.concatenate([each.arrival_time for each in traces]), kind="stable")

        def of_all(columns: Iterable[Any]) -> Any:
            present = [column for column in columns if column is not None]
            return np.concatenate(present)[order] if len(present) == len(traces) else None

        return LoggedRun(
            arrival=of_all(each.arrival_time for each in traces),
            first_token=of_all(each.first_token for each in traces),
            last_token=of_all(each.last_token for each in traces),
            prompt=of_all(each.prompt_tokens for each in traces),
            output=of_all(each.output_tokens for each in traces),
            clock=clock,
            scheduled=of_all(each.scheduled for each in traces),
            sent=of_all(each.sent for each in traces),
        )


@dataclass(frozen=True, repr=False)
class Agreement(Brief):
    """One statistic of a quantity, measured and simulated; seconds, or tokens/s for the throughput."""

    quantity: str
    statistic: str
    measured: float
    simulated: float

    @property
    def relative(self) -> float:
        """Simulated over measured, less 1."""
        return self.simulated / self.measured - 1.0


def read_logged_run(path: str | Path, **reading: Any) -> LoggedRun:
    """Read a log that says when tokens came, such as vLLM's own or the report of a benchmark.

    Args:
        reading: as in `read_trace`.

    Raises:
        FluidgateError: the file is missing or wrong; the message names file, line and mend.
    """
    run = LoggedRun.of([read_trace(path, sort=True, **reading)])
    if run is None:
        fail(
            str(path),
            [f"no times of tokens; give a log with the keys {' and '.join(MEASURED)}, or name them with --map"],
        )
    return run


def replayed(run: LoggedRun, engine: Engine, take_segments: TakeSegments | None = None) -> LoggedRun:
    """The same requests through one engine of the iteration model: a GPU, or ranks in step.

    Args:
        take_segments: takes what ran, a block at a time.

    Raises:
        FluidgateError: the engine needs a policy, or its memory can't hold a request.
    """
    from fluidgate.simulation.iteration.rules import Placements
    from fluidgate.simulation.iteration.run import Run, run_requests
    from fluidgate.workloads.streams import REQUEST

    requests = np.zeros(len(run.arrival), REQUEST)
    requests["arrival"], requests["prompt"], requests["output"] = run.arrival, run.prompt, run.output
    requests["patience"] = np.inf
    logs: list[Any] = []
    measured = run_requests(
        [requests],
        engine,
        Run(engine.keys.data_parallel, 1),
        Placements(),
        take_log=logs.append,
        take_segments=take_segments,
    )
    if measured.rejections.sum() > 0:
        fail("KV memory", [f"{measured.rejections.sum()} requests are longer than it; give more tokens"])
    log = np.sort(np.concatenate(logs), order="number")
    return LoggedRun(
        run.arrival, log["first_token"], log["last_token"], run.prompt, run.output, int(measured.preemptions.sum())
    )


def agreement(measured: Summary, simulated: Summary) -> Iterator[Agreement]:
    """The statistics that both of them have."""
    for (quantity, statistic), one in measured.items():
        two = simulated[quantity, statistic]
        if one is not None and two is not None:
            yield Agreement(quantity, statistic, one, two)
