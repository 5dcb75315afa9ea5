"""Objects of JSON that hold many requests each: reports of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fluidgate.toml_file import fail

Requests = Iterator[dict[str, Any]]

RUN = "benchmark"
"""The key that is added to each request: the number of its benchmark."""


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
    """`vllm bench serve --save-detailed`: a list a quantity, each with a number a request."""
    count = len(found["input_lens"])
    lists = {key: value for key, value in found.items() if isinstance(value, list) and len(value) == count}
    for k in range(count):
        yield {RUN: number, **{key: value[k] for key, value in lists.items()}}


def _of_benchmarks(found: dict[str, Any], number: int, source: str) -> Requests:
    """guidellm: benchmarks, each with its requests by how they ended."""
    for run, benchmark in enumerate(found["benchmarks"], start=number):
        ended = benchmark.get("requests") if isinstance(benchmark, dict) else None
        if not isinstance(ended, dict):
            fail(source, [f"benchmark {run}: no requests in it; give a report that keeps them"])
        for how in ("successful", "incomplete", "errored"):
            requests = ended.get(how)
            for request in requests if isinstance(requests, list) else ():
                if isinstance(request, dict):
                    yield {RUN: run, **request}


def _of_sessions(found: dict[str, Any], number: int, source: str) -> Requests:
    reason = "sessions (sub_requests), in which a request arrives when the one before has ended"
    fail(source, [f"{reason}; give a trace in which each request has its own time of arrival"])


HOLDERS: dict[str, Callable[[dict[str, Any], int, str], Requests]] = {
    "input_lens": _of_lists,
    "benchmarks": _of_benchmarks,
    "sub_requests": _of_sessions,
}
"""By the key that tells such a report: how its requests are read."""
