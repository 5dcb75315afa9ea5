"""Numbers of a scenario file that look as if they were meant in another unit.

Times are seconds and rates are per second, and per GPU where the file has no [cluster]. A number is doubted where it
lies by orders of magnitude beyond what engines do, so that what is unusual and meant is not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from fluidgate.errors import UnitWarning
from fluidgate.model import Scenario
from fluidgate.toml_file import shown
from fluidgate.unit_doubts import LONGEST, milliseconds

LONGEST_ITERATION = 2.0
"""s; a mixed iteration takes some 10 to 200 ms."""

SLOWEST_RATE = 0.5
"""1/s; gamma is the solo iterations a second, some 20 to 200."""

LEAST_PATIENCE = 0.1
"""s that who waits may stay on average."""

OVERLOAD = 20.0
"""Times the prompts that one GPU can read, or the answers that it can write."""

SECONDS = {
    "engine": {"overhead": 1.0, "overhead_per_decode": 0.1, "front_end": 10.0, "front_end_first": 10.0,
               "transfer_latency": 10.0, "swap_seconds": 0.1},
    "indicators": {"max_tpot": LONGEST["tpot"]},
}  # fmt: skip
"""By table: keys that are seconds, and from where on they are doubted."""


def doubt_units(data: Mapping[str, Any], scenario: Scenario, source: str) -> None:
    """Warn, once each, of numbers that are doubted: file, key, how it is read, and what to write instead."""
    iterations = list(_of_iterations(data, scenario))
    rates = [] if iterations else _of_rates(data, scenario)  # what a GPU can take is as doubtful as its iterations
    for doubt in (*iterations, *_of_times(data), *_of_patience(data), *rates):
        warnings.warn(f"{source}: {doubt}", UnitWarning, stacklevel=2)


def _of_iterations(data: Mapping[str, Any], scenario: Scenario) -> Iterator[str]:
    gpu = data.get("gpu", {})
    alpha, beta, gamma = (gpu.get(key) for key in ("alpha", "beta", "gamma"))
    if alpha is not None and alpha >= LONGEST_ITERATION:
        yield milliseconds("gpu.alpha", alpha, " an iteration")
    if beta is not None and beta * scenario.gpu.chunk_size >= LONGEST_ITERATION:
        yield milliseconds("gpu.beta", beta, " a prompt token")
    if gamma is not None and gamma < SLOWEST_RATE:
        yield (
            f"gpu.gamma: {gamma:g} is read as {gamma:g} solo iterations a second; if you meant the s of one write "
            f"{1 / gamma:.4g}, if those a millisecond {1000 * gamma:.4g}"
        )


def _of_times(data: Mapping[str, Any]) -> Iterator[str]:
    for name, keys in SECONDS.items():
        table = data.get(name, {})
        yield from (milliseconds(f"{name}.{key}", table[key]) for key, most in keys.items() if _above(table, key, most))
    yield from _of_targets("targets.", data.get("targets", {}))
    for k, table in enumerate(data.get("classes", [])):
        yield from _of_targets(f"classes[{k}] ({shown(table.get('name', ''))}): ", table)


def _of_targets(where: str, table: Mapping[str, Any]) -> Iterator[str]:
    for key in table:
        most = LONGEST.get(key.partition("_")[0])
        if most is not None and _above(table, key, most):
            yield milliseconds(f"{where}{key}", table[key])


def _of_patience(data: Mapping[str, Any]) -> Iterator[str]:
    for k, table in enumerate(data.get("classes", [])):
        rate = table.get("patience_rate", 0.0)
        if rate > 1 / LEAST_PATIENCE:
            yield (
                f"classes[{k}] ({shown(table.get('name', ''))}): patience_rate: {rate:g} is read as {rate:g} a second, "
                f"so that who waits leaves after {1 / rate:.2g} s; if you meant {rate:g} s write {1 / rate:.4g}"
            )


def _of_rates(data: Mapping[str, Any], scenario: Scenario) -> Iterator[str]:
    """Rates per GPU, where there is no [cluster], which no GPU could take."""
    if "cluster" in data or not scenario.classes:
        return
    offered = sum(each.arrival_rate * each.prompt_tokens for each in scenario.classes)
    share_read = 1.0 - float(scenario.hit_rates.min())
    most = scenario.gpu.chunk_size / scenario.gpu.tau
    written = sum(each.arrival_rate * each.output_tokens for each in scenario.classes)
    loads = {
        "prompts that one can read": share_read * offered / most,
        "answers that one can write": written / (scenario.gpu.batch_size * scenario.gpu.gamma),
    }
    what, times = max(loads.items(), key=lambda each: each[1])
    if times > OVERLOAD:
        total = sum(each.arrival_rate for each in scenario.classes)
        yield (
            f"classes: arrival_rate: {total:g} requests a second for each GPU are {times:.4g} times the {what}; if "
            "they are of the whole cluster write [cluster] gpus, and total_arrival_rate"
        )


def _above(table: Mapping[str, Any], key: str, most: float) -> bool:
    value = table.get(key)
    return isinstance(value, int | float) and value >= most
