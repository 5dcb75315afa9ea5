"""What an answer means for who runs it: pools of engines, one a kind, and a gateway before them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fluidgate.deployment.pool import EnginePool
from fluidgate.errors import FluidgateError
from fluidgate.model import Scenario
from fluidgate.sizing.answer import Answer, Pool
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.mix import Mix

FIRST_PORT = 8001
GATEWAY_PORT = 8080
SIDE_CHANNEL = 5600
"""First port of NIXL's side channels."""


LONGEST_NAME, LONGEST_LABEL = 30, 14
"""Letters of a fleet's name, and of a pool's: with what is added, a host's name on Kubernetes has 63 at most."""


@dataclass(frozen=True)
class Fleet:
    """The engines of an answer.

    Attributes:
        load: the whole of it, on the engines of the first pool.
        pools: one a kind of engine.
    """

    answer: Answer = field(repr=False)
    load: Scenario
    pools: tuple[EnginePool, ...]

    @staticmethod
    def of(answer: Answer) -> Fleet:
        """Of an answer that has engines.

        Raises:
            FluidgateError: it has none, the gateway does not run a policy, or two types serve different models.
        """
        if answer.engines is None:
            raise FluidgateError("--save: no choice keeps the targets, so there is nothing to run; give other choices")
        if isinstance(answer.choice, Mix):
            pools = tuple(_pools(answer.fleet))
            first, ranks = answer.fleet[0].choice, sum(each.engines * each.choice.ranks for each in answer.fleet)
        else:
            pools = (EnginePool.of(answer.choice, answer.engines),)
            first, ranks = answer.choice, answer.engines * answer.choice.ranks
        load = first.scenario.for_gpus(ranks).replace(options=(), cluster_gpus=ranks)
        models = {each.model for each in pools}
        if len(models) > 1:
            names = " and ".join(sorted(each or "one that the profile does not name" for each in models))
            raise FluidgateError(
                f"--save: the types of this mix were measured with different models, {names}; give "
                "profiles of one model"
            )
        return Fleet(answer, load, pools)

    @property
    def mixed(self) -> bool:
        return len(self.pools) > 1

    @property
    def engines(self) -> int:
        return sum(each.engines for each in self.pools)

    @property
    def gpus(self) -> int:
        """Of all engines."""
        return sum(each.engines * each.gpus for each in self.pools)

    @property
    def name(self) -> str:
        """Of the scenario, as Compose and Kubernetes take names."""
        plain = _plain(self.load.name)[:LONGEST_NAME].strip("-")
        return plain if plain and plain[0].isalpha() else f"fleet-{plain}".strip("-")

    @property
    def model(self) -> str | None:
        """The weights on Hugging Face; None where the profiles do not say which."""
        return self.pools[0].model

    @property
    def each(self) -> Iterator[tuple[int, EnginePool]]:
        """Every engine: its number, from 0 on, and its pool."""
        return ((number, pool) for pool in self.pools for number in pool.numbers)

    @property
    def policy_names(self) -> list[str]:
        """Of all pools, each once."""
        return list(dict.fromkeys(each.policy_name for each in self.pools))

    def port(self, number: int) -> int:
        """Of an engine on one machine."""
        return FIRST_PORT + number

    def urls(self, pool: EnginePool) -> list[str]:
        """Of the engines of a pool on one machine."""
        return [f"http://127.0.0.1:{self.port(number)}" for number in pool.numbers]


def _pools(fleet: Sequence[Pool]) -> Iterator[EnginePool]:
    labels, first = _labels([each.choice for each in fleet]), 0
    for label, each in zip(labels, fleet, strict=True):
        yield EnginePool.of(each.choice, each.engines, label=label, first=first, shares=each.shares)
        first += each.engines


def _labels(choices: Sequence[Choice]) -> list[str]:
    """The GPUs' names, with a number where two are the same."""
    names = [_plain(each.profile.partition("/")[0])[:LONGEST_LABEL].strip("-") or "own" for each in choices]
    return [name if names.count(name) == 1 else f"{name}-{k}" for k, name in enumerate(names, 1)]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
