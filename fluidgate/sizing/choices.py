"""What a fleet may be made of: engines of one kind, set in one way, under one policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from fluidgate.engine_table import EngineModel
from fluidgate.errors import FluidgateError
from fluidgate.model import Gpu, Scenario
from fluidgate.profiles import find_profile
from fluidgate.profiles.kv_memory import kv_memory
from fluidgate.shown import Brief
from fluidgate.size_table import FleetOption
from fluidgate.toml_file import LARGEST_WHOLE
from fluidgate.wording import named

POLICY = "index-and-pool"
"""That is tried where none is named."""
OWN = "own"
"""How a GPU is named that no profile describes."""


@dataclass(frozen=True, repr=False)
class Choice(Brief):
    """One combination of the options.

    Attributes:
        scenario: with its engines; the load is shared by `cluster_gpus` of them.
        profile: of its GPUs, by name.
        policy: by name.
        gpu_hour: price of an hour of a GPU; None where there is none.
        max_engines: that there are; None for no limit.
    """

    scenario: Scenario = field(repr=False)
    profile: str
    policy: str
    gpu_hour: float | None
    max_engines: int | None

    @property
    def batch_size(self) -> int:
        return self.scenario.gpu.batch_size

    @property
    def chunk_size(self) -> int:
        return self.scenario.gpu.chunk_size

    @property
    def ranks(self) -> int:
        """What a simulation counts as GPUs, in each engine."""
        return self.scenario.engine.data_parallel

    @property
    def gpus_per_engine(self) -> int:
        """All that fail together: the tensor-parallel group of each rank."""
        return self.ranks * self.scenario.gpu.calibrated.gpus

    @property
    def name(self) -> str:
        return f"{self.profile}, batch {self.batch_size}, chunk {self.chunk_size}, {self.policy}"

    @property
    def priced(self) -> bool:
        """Whether cost is money."""
        return self.gpu_hour is not None

    def hourly(self, engines: float) -> float:
        """Of so many engines: money, or GPUs where there is no price."""
        return engines * self.gpus_per_engine * (self.gpu_hour or 1.0)


def choices_of(
    scenario: Scenario,
    *,
    profiles: Sequence[str] = (),
    batch_sizes: Sequence[int] = (),
    chunk_sizes: Sequence[int] = (),
    policies: Sequence[str] = (),
    gpu_hour: float | None = None,
    max_gpus: int | None = None,
) -> list[Choice]:
    """Each combination of what is given; or, where neither profiles nor sizes nor policies are, of [[options]].

    Raises:
        FluidgateError: a profile or a size is wrong, or some options have a price and others none.
    """
    given = FleetOption(
        batch_sizes=_sizes(named("--batch-size", "batch_sizes"), batch_sizes),
        chunk_sizes=_sizes(named("--chunk-size", "chunk_sizes"), chunk_sizes),
        policies=tuple(policies),
    )
    if profiles:
        options = [given.model_copy(update={"profile": name}) for name in profiles]
    elif given != FleetOption() or not scenario.options:
        options = [given]
    else:
        options = list(scenario.options)
    price = gpu_hour if gpu_hour is not None else scenario.cost.gpu_hour
    made = [each for option in options for each in _combined(scenario, option, price, max_gpus)]
    priced = {each.gpu_hour is not None for each in made}
    if len(priced) > 1:
        raise FluidgateError(
            "options: some have a price, others none, so that they can't be held against each other; give each its "
            "gpu_hour, or [cost] gpu_hour for all"
        )
    return list(dict.fromkeys(made))


def _sizes(option: str, values: Sequence[int]) -> tuple[int, ...]:
    for value in values:
        if not 1 <= value <= LARGEST_WHOLE:
            raise FluidgateError(f"{option}: must be at least 1 and at most {LARGEST_WHOLE}, but is {value}")
    return tuple(map(int, values))


def _combined(scenario: Scenario, option: FleetOption, price: float | None, most: int | None) -> list[Choice]:
    gpu = scenario.gpu
    batches, chunks = option.batch_sizes or (gpu.batch_size,), option.chunk_sizes or (gpu.chunk_size,)
    limit = option.max_gpus if most is None else most
    hourly = option.gpu_hour if option.gpu_hour is not None else price
    found = []
    for batch, chunk, policy in product(batches, chunks, option.policies or (POLICY,)):
        made = with_engines(scenario, option.profile, batch, chunk)
        name = made.gpu.calibrated.profile or OWN
        each = Choice(made, name, policy, hourly, None)
        found.append(each if limit is None else replace(each, max_engines=limit // each.gpus_per_engine))
    return found


def with_engines(scenario: Scenario, profile: str | None, batch: int, chunk: int) -> Scenario:
    """The scenario on other GPUs, or the same GPUs set otherwise.

    Of another profile, KV memory follows from that profile's own card and weights. A chunk that is not the scenario's
    takes the place of its token budget.

    Raises:
        FluidgateError: no such profile, or its weights leave no memory.
    """
    own, engine = scenario.gpu, scenario.engine
    gpu = own
    if profile is not None and profile != own.calibrated.profile:
        found = find_profile(profile)
        try:
            memory = kv_memory(found, None, block=engine.kv_block)
        except FluidgateError as error:
            raise FluidgateError(f"profile '{profile}': {error}") from None
        engine = _with_memory(engine, memory.tokens)
        calibrated = found.calibrated.model_copy(update={"kv_memory": memory.reason})
        gpu = Gpu(batch_size=batch, chunk_size=chunk, iteration=found.iteration, calibrated=calibrated)
    elif (batch, chunk) != (own.batch_size, own.chunk_size):
        gpu = own.changed(batch_size=batch, chunk_size=chunk)
    if chunk != own.chunk_size:
        engine = _changed(engine, max_batched_tokens=None)
    return scenario.replace(gpu=gpu, engine=engine)


def _with_memory(engine: EngineModel, tokens: int | None) -> EngineModel:
    """The engine with another KV memory; without one, what goes with it is left out too."""
    if tokens is not None:
        return _changed(engine, kv_tokens=tokens)
    plain = EngineModel()
    without = ("kv_block", "kv_reservation", "kv_caching", "preemption", "swap_seconds")
    return _changed(engine, kv_tokens=None, **{key: getattr(plain, key) for key in without})


def _changed(engine: EngineModel, **keys: Any) -> EngineModel:
    return EngineModel(**{**engine.model_dump(), **keys})
