"""The fidelity that a scenario asks for, and what of it the Markov network does not see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from fluidgate.engine_table import EngineModel
from fluidgate.model import RequestClass, Scenario

Fidelity = Literal["markov", "iteration"]

MARKOV_ARRIVALS = ("poisson", "gamma")
"""Processes of arrivals that the Markov network draws."""
TABLES = ("engine", "lengths", "targets")
"""Tables of a scenario that only iterations read."""

UNSEEN_KEYS = {
    "batching": "batches its requests in one way",
    "max_batched_tokens": "has no iterations whose tokens could be counted",
    "async_scheduling": "has no batches to compose ahead",
    "data_parallel": "lets each GPU go at its own pace",
    "transfer_latency": "moves a request between GPUs in no time",
    "transfer_bandwidth": "moves a request between GPUs in no time",
    "front_end": "has no clients, and times from the engines' queue",
    "front_end_first": "has no clients, and times up to the engines' tokens",
}
"""By key of [engine], what the Markov network does instead. The others are about memory, which it has none of, or about
iterations."""
UNSEEN_SESSIONS = {
    "prefix_tokens": "reads every prompt from its beginning",
    "turns": "has no sessions: each request comes by itself",
    "subagents": "has no sessions: each request comes by itself",
}
"""By key of [[classes]], what the Markov network does instead; the others of prefixes and sessions go with these."""
MEMORY = ("kv_", "preemption", "swap_", "prefix_")


ELSEWHERE = "`fluidgate simulate --fidelity iteration` does"
"""The end of such a sentence where the Markov network is all there is."""


def default_fidelity(scenario: Scenario) -> Fidelity:
    """That of iterations where the scenario says what only they have: a table of theirs, a law of an iteration over its
    batch, prefixes or sessions, GPUs that fail or are drained, or arrivals that the Markov network does not draw."""
    asked = (
        scenario.goes_beyond_the_model
        or scenario.has_fleet
        or any(table in scenario.model_fields_set for table in TABLES)
    )
    return "iteration" if asked or scenario.arrivals.process not in MARKOV_ARRIVALS else "markov"


def unseen(scenario: Scenario, mend: str = "use --fidelity iteration") -> tuple[str, ...]:
    """What the Markov network does not see of a scenario, a sentence a key; `mend` says what does."""
    found = (
        *_engine(scenario.engine),
        *_lengths(scenario),
        *_targets(scenario),
        *_sessions(scenario),
        *_law(scenario),
        *_fleet(scenario),
    )
    return tuple(f"{sentence}; {mend}" for sentence in found)


def _engine(engine: EngineModel) -> Iterator[str]:
    for key, value in engine.model_dump(exclude_defaults=True).items():
        instead = UNSEEN_KEYS.get(key, "has no memory" if key.startswith(MEMORY) else "has no iterations")
        yield f"[engine] {key} = {_toml(value)}: the Markov network {instead}"


def _lengths(scenario: Scenario) -> Iterator[str]:
    for key in ("prompt", "output"):
        if (law := getattr(scenario.lengths, key)) != "exponential":
            yield f'[lengths] {key} = "{law}": the Markov network has exponential lengths'


def _targets(scenario: Scenario) -> Iterator[str]:
    for key, value in scenario.targets.model_dump(exclude_defaults=True).items():
        yield f"[targets] {key} = {_toml(value)}: the Markov network counts no goodput"
    for key in ("ttft_target", "tpot_target"):
        own = [each.name for each in scenario.classes if getattr(each, key) is not None]
        if own:
            yield f"[[classes]] {key} of {_names(own)}: the Markov network counts no goodput"


def _sessions(scenario: Scenario) -> Iterator[str]:
    for key, instead in UNSEEN_SESSIONS.items():
        own = [c.name for c in scenario.classes if getattr(c, key) != RequestClass.model_fields[key].default]
        if own:
            yield f"[[classes]] {key} of {_names(own)}: the Markov network {instead}"


def _fleet(scenario: Scenario) -> Iterator[str]:
    if scenario.failures is not None:
        yield "[failures]: in the Markov network no GPU fails"
    if scenario.schedule:
        yield "[[schedule]]: in the Markov network all GPUs are up all the time"


def _law(scenario: Scenario) -> Iterator[str]:
    if scenario.gpu.iteration.by_batch:
        yield (
            "[gpu] the iteration time depends on the batch: in the Markov network every mixed and every solo iteration "
            "lasts as long as at the plan's operating point"
        )


def _names(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value}"
