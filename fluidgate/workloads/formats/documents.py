"""Objects of JSON that hold many requests each: reports of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fluidgate.toml_file import fail

Requests = Iterator[dict[str, Any]]

RUN = "benchmark"
"""A key that is added to each request: the number of its benchmark."""

SETTING = "sent as"
"""Another: how the requests of its benchmark were sent, such as `poisson 3`."""

USERS = "users"
"""Another: of a closed loop, the clients that each sent a request when the one before had ended."""

ENDED = "ended"
"""Another: how a request ended that did not succeed."""


def holds_requests(found: dict[str, Any]) -> bool:
    """Whether an object is not one request but a report of many."""
    return any(isinstance(found.get(key), list) for key in HOLDERS)


def requests_in(found: dict[str, Any], number: int, source: str) -> Requests:
    """The requests of a report, the first of the file having the number 1.

    Raises:
        FluidgateError: it is one of sessions, or not as its kind is.
    """
    key = next(key for key in HOLDERS if isinstance(found.get(key), list))
    yield from HOLDERS[key](found, number, source)


def _of_lists(found: dict[str, Any], number: int, source: str) -> Requests:
    """`vllm bench serve --save-detailed`: a list a quantity, each with a number a request.

    A request that failed has 0 output tokens. Times of tokens are `ttft` and `latency`, s since it was sent, where its
    answer was streamed: `latencies` of newer versions, else the sum of the TTFT and the gaps.
    """
    count = len(found["input_lens"])
    lists = {key: value for key, value in found.items() if isinstance(value, list) and len(value) == count}
    rate, most = found.get("request_rate"), found.get("max_concurrency")
    closed = rate in ("inf", float("inf")) and most is not None
    told = {RUN: number, SETTING: f"max_concurrency {most}" if closed else f"request_rate {rate}"}
    for k in range(count):
        request = {key: value[k] for key, value in lists.items()}
        ttft = request.get("ttfts") or None
        last = request.get("latencies", _sum(ttft, request.get("itls")))
        error = request.get("errors") or (None if request.get("output_lens", 1) else "no output")
        more = {"ttft": ttft, "latency": ttft and last, USERS: most if closed else None, ENDED: error}
        yield {**request, **told, **more}


def _sum(first: Any, gaps: Any) -> float | None:
    found = [first, *gaps] if isinstance(gaps, list) else []
    numbers = [float(each) for each in found if isinstance(each, int | float)]
    return sum(numbers) if numbers and len(numbers) == len(found) else None


def _of_benchmarks(found: dict[str, Any], number: int, source: str) -> Requests:
    """guidellm: benchmarks, each with its requests by how they ended."""
    for run, benchmark in enumerate(found["benchmarks"], start=number):
        ended = benchmark.get("requests") if isinstance(benchmark, dict) else None
        if not isinstance(ended, dict):
            fail(source, [f"benchmark {run}: no requests in it; give a report that keeps them"])
        setting, users = _strategy(benchmark)
        for how in ("successful", "incomplete", "errored"):
            requests = ended.get(how)
            for request in requests if isinstance(requests, list) else ():
                if isinstance(request, dict):
                    told = {RUN: run, SETTING: setting, USERS: users}
                    yield {**request, **told, ENDED: None if how == "successful" else how}


def _strategy(benchmark: dict[str, Any]) -> tuple[str, int | None]:
    """How a benchmark of guidellm sent its requests, and the clients of a closed loop; before 0.4 it is in `args`."""
    holders = [benchmark.get(key) for key in ("config", "args")]
    found = [each.get("strategy") for each in holders if isinstance(each, dict)]
    strategy = next((each for each in found if isinstance(each, dict)), {})
    kind = strategy.get("type_")
    streams = 1 if kind == "synchronous" else strategy.get("streams") if kind == "concurrent" else None
    size = streams if streams is not None else strategy.get("rate")
    return f"{kind or 'unknown'}{'' if size is None else f' {size}'}", streams


def _of_sessions(found: dict[str, Any], number: int, source: str) -> Requests:
    reason = "sessions (sub_requests), in which a request arrives when the one before has ended"
    fail(source, [f"{reason}; give a trace in which each request has its own time of arrival"])


HOLDERS: dict[str, Callable[[dict[str, Any], int, str], Requests]] = {
    "input_lens": _of_lists,
    "benchmarks": _of_benchmarks,
    "sub_requests": _of_sessions,
}
"""By the key that tells such a report: how its requests are read."""
