"""What a target comes to at best, however many engines there are: a request alone on one still has to be read and
answered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fluidgate.batching import Batching
from fluidgate.model import Array, Scenario
from fluidgate.policies import find_any_policy
from fluidgate.simulation.iteration.scenario_engine import engine_of
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.load import Load
from fluidgate.sizing.observed import statistic, within_limits
from fluidgate.sizing.targets import Target
from fluidgate.sizing.trial import SURE, interval
from fluidgate.workloads.streams import REQUEST, Requests

ENOUGH = 50_000
"""Requests of a replication that are looked at."""


@dataclass(frozen=True)
class Floor:
    """A target that no number of engines keeps.

    Attributes:
        value: that it comes to at best; of a share at most.
    """

    target: Target
    value: float


def beyond_reach(choice: Choice, load: Load, sample: Sequence[Requests]) -> Floor | None:
    """The first target that is missed by the requests' own work alone; None where that rules out none.

    Times of the very requests that a trial would send, each at least those of the law for its own tokens in the batches
    that suit it best. Nothing is said where some may leave, and where some find no memory of shares alone: those who
    stay may be the short ones.

    Args:
        sample: those of `requests_of`, by replication.
    """
    scenario = choice.scenario
    if any(c.patience_rate > 0.0 for c in scenario.classes):
        return None
    pace, some_rejected = Pace.of(scenario, choice.policy), some_do_not_fit(scenario, sample)
    for target in load.targets:
        if some_rejected and not target.is_share:
            continue
        values = np.array([statistic(target, pace.best(target, requests, scenario)) for requests in sample])
        best = _sure(target, values)
        if math.isfinite(best) and not target.keeps(best):
            return Floor(target, float(values.mean()))
    return None


@dataclass(frozen=True)
class Pace:
    """The least times of an engine.

    Attributes:
        most: tokens of a prompt that an iteration reads.
        lines: intercepts, s, and slopes, s a token, none above the time of an iteration that reads so many tokens or
            more, whatever else it does; shape (2, lines).
        token: s from a token of an answer to the next.
    """

    most: float
    lines: Array
    token: float

    @staticmethod
    def of(scenario: Scenario, policy: str) -> Pace:
        gpu = scenario.gpu
        batching = Batching(find_any_policy(policy).on(scenario).batching)
        whole = batching == Batching.PREFILL_FIRST
        most = math.inf if whole else float(max(engine_of(scenario, batching).tokens, gpu.chunk_size))
        table = gpu.iteration.table
        chunks = {1.0, float(gpu.chunk_size) if whole else most}
        batches = {1.0, float(gpu.batch_size)}
        if table is not None:
            chunks |= {float(c) for c in table.chunk_sizes if c > 1.0 and (whole or c < most)}
            batches |= {float(b) for b in (*table.batch_sizes, *table.solo_axes[0]) if 1.0 < b < gpu.batch_size}
        nodes = sorted(chunks)
        mixed = np.array([[gpu.seconds(chunk, decodes, 0.0) for decodes in (0.0, *sorted(batches))] for chunk in nodes])
        least = np.minimum.accumulate(mixed.min(axis=1)[::-1])[::-1]
        solo = min(gpu.seconds(0.0, decodes, 0.0) for decodes in batches)
        return Pace(most, _below(np.array(nodes), least), max(min(solo, float(mixed[:, 1:].min())), 0.0))

    def reading(self, tokens: Array) -> Array:
        """The least seconds in which prompts are read: a line below the times of all iterations holds for their sum."""
        iterations = np.maximum(np.ceil(tokens / self.most), 1.0)
        return np.asarray((self.lines[0] * iterations[:, None] + self.lines[1] * tokens[:, None]).max(axis=1))

    def best(self, target: Target, requests: Requests, scenario: Scenario) -> Array:
        """What a target reads off each request at best; nan where it does not look at it."""
        first, tokens = self.reading(requests["prompt"].astype(np.float64)), requests["output"]
        each = np.where(tokens > 1, self.token, np.nan)
        if target.measure == "served":
            seen = fits(scenario, requests).astype(np.float64)
        elif target.measure == "goodput":
            within = within_limits(scenario, requests["cls"], first, each)
            seen = np.logical_and(within, fits(scenario, requests)).astype(np.float64)
        elif target.measure == "ttft":
            seen = first
        elif target.measure == "tpot":
            seen = each
        else:
            seen = first + (tokens - 1) * self.token
        if target.cls is None:
            return np.asarray(seen)
        return np.where(requests["cls"] == scenario.class_names.index(target.cls), seen, np.nan)


def _below(nodes: Array, times: Array) -> Array:
    """Intercepts, not below 0, and slopes of lines below the times between and at the nodes, shape (2, lines)."""
    slopes = [0.0, *(np.diff(times) / np.diff(nodes) if len(nodes) > 1 else [])]
    cuts = np.array([(times - slope * nodes).min() for slope in slopes])
    kept = cuts >= 0.0
    return np.array([cuts[kept], np.array(slopes)[kept]])


def requests_of(choice: Choice, load: Load, engines: int) -> Iterator[Requests]:
    """Those of each replication of the first look, whatever the choice; but where prompts are found in memory, one of
    each class with a token to read.

    Args:
        engines: any number that the policy of the choice runs on.
    """
    if choice.scenario.has_sessions:
        yield _least_of_all(choice.scenario)
        return
    source = load.study(choice.scenario, choice.policy, engines * choice.ranks).source
    for replication in range(load.looks[0]):
        blocks, count = [], 0
        for block in source.requests(replication):
            blocks.append(block)
            count += len(block)
            if count >= ENOUGH and len(load.looks) > 1:
                break
        if blocks:
            yield np.concatenate(blocks)


def turns_of(choice: Choice, load: Load, engines: int) -> list[Requests]:
    """All requests of the sessions of a replication, at their full lengths."""
    source = load.study(choice.scenario, choice.policy, engines * choice.ranks).source
    return [*source.requests(0), source.script(0).rows[1:]]


def _least_of_all(scenario: Scenario) -> Requests:
    """A request of each class with as little to do as may be."""
    made = np.zeros(len(scenario.classes), REQUEST)
    made["cls"], made["prompt"], made["output"] = np.arange(len(made)), 1, 2
    return made


def some_do_not_fit(scenario: Scenario, sample: Sequence[Requests]) -> bool:
    """Whether a request of a sample is turned away by every engine."""
    return any(not fits(scenario, requests).all() for requests in sample)


def fits(scenario: Scenario, requests: Requests) -> Array:
    """Which requests the KV memory of an engine holds to their end; the others are rejected as they come."""
    memory = scenario.engine.kv_tokens
    tokens = requests["prompt"].astype(np.int64) + requests["output"]
    return np.asarray(tokens <= (np.iinfo(np.int64).max if memory is None else memory))


def _sure(target: Target, values: Array) -> float:
    """The end of the confidence interval over replications that is on the target's side."""
    if len(values) < 2:
        return float(values[0]) if len(values) else math.nan
    low, high = interval(values, SURE)
    return high if target.is_share else low
