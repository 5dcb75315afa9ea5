"""The nouns of the model: request classes, iteration time, GPU, pricing, scenario, and the service rates.

Source: Lin, Ding, Han, Zhang, arXiv:2602.02987, cited below as [LDHZ]; equation numbers are its.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    model_validator,
)

from fluidgate.arguments import check_kind, checked
from fluidgate.engine_table import BatchingName as BatchingName
from fluidgate.engine_table import EngineModel as EngineModel
from fluidgate.engine_table import Targets as Targets
from fluidgate.errors import ArgumentError, FluidgateError
from fluidgate.fleet_table import Failures as Failures
from fluidgate.fleet_table import Step as Step
from fluidgate.iteration_time import IterationTime as IterationTime
from fluidgate.iteration_time import SoloTable as SoloTable
from fluidgate.iteration_time import TimeTable as TimeTable
from fluidgate.noun import NonNegative as NonNegative
from fluidgate.noun import NonNegativeInt as NonNegativeInt
from fluidgate.noun import Noun as Noun
from fluidgate.noun import Positive as Positive
from fluidgate.scenario_reader import read_scenario, scenario_text
from fluidgate.session_table import ClassOfSessions, SessionTable, own_starts, subagent_problems
from fluidgate.session_table import ThinkLaw as ThinkLaw
from fluidgate.shown import Drawn, rate, several
from fluidgate.size_table import Cost, FleetOption
from fluidgate.target_table import StatisticTargetTable
from fluidgate.toml_file import LARGEST_WHOLE, SCHEMA, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

Array = NDArray[np.float64]
Scheme = Literal["bundled", "separate"]
Process = Literal["poisson", "gamma", "mmpp", "daily", "closed"]
LengthLaw = Literal["exponential", "fixed", "lognormal", "empirical"]

Duration = Annotated[float, Field(ge=0.01, le=1e9)]
"""Seconds for which a rate of arrivals stands, within what a stream of requests can draw."""


class RequestClass(SessionTable, StatisticTargetTable, Noun):
    """A class of requests with its mean lengths, its arrival rate and exponential patience; and its sessions.

    Of sessions of several turns `prompt_tokens` and `arrival_rate` are those of all requests: of whatever turn, and of
    sub-agents too.
    """

    model_config = ConfigDict(strict=False)

    name: str = Field(min_length=1, description="name of the class, distinct from the others")
    prompt_tokens: Positive = Field(description="mean prompt length P, tokens")
    output_tokens: Positive = Field(description="mean output length D, tokens")
    arrival_rate: Positive = Field(description="arrivals lambda, requests/s per GPU")
    patience_rate: NonNegative = Field(
        description="abandonment theta while waiting, 1/s; 0 for requests that never leave"
    )
    ttft_target: Positive | None = Field(
        default=None, description="TTFT for goodput, s, in the place of the scenario's"
    )
    tpot_target: Positive | None = Field(
        default=None, description="TPOT for goodput, s, in the place of the scenario's"
    )
    prefix_hit_rate: float | None = Field(
        default=None, ge=0, lt=1, description="share of its prompt tokens found in memory; None: that of an endless one"
    )

    @model_validator(mode="after")
    def _keys_of_sessions_go_together(self) -> Self:
        for problem in self.session_problems(self.prompt_tokens, self.output_tokens):
            raise ValueError(problem)
        return self

    @property
    def first_tokens(self) -> float:
        """Mean prompt of the first request of a session, tokens: what the later turns leave of the mean over all."""
        return self.prompt_tokens - self.grown_tokens(self.output_tokens)

    @property
    def new_tokens(self) -> float:
        """Tokens of a prompt, on average over all requests, that neither its session nor its prefix had before.

        Of `m` requests of a session one brings its first prompt without the prefix, at least a token, the others
        `turn_tokens` each.
        """
        first = max(self.first_tokens - self.prefix_tokens, 1.0)
        return (first + (self.turns - 1.0) * self.further_tokens) / self.turns

    @property
    def found_share(self) -> float:
        """Share of its prompt tokens that prefix caching finds: as given, else what an endless memory does."""
        return self.prefix_share if self.prefix_hit_rate is None else self.prefix_hit_rate

    @property
    def session_share(self) -> float:
        """Share of the prompt tokens that the session itself had before: what an endless memory of a session holds."""
        return max(1.0 - (self.new_tokens + self.prefix_tokens / self.turns) / self.prompt_tokens, 0.0)

    @property
    def prefix_share(self) -> float:
        """Share of the prompt tokens that were there before, in the long run, in an endless memory of all sessions.

        Token by token: blocks that are not full hold less, and so does a memory that has not met each prefix yet.
        """
        return max(1.0 - self.new_tokens / self.prompt_tokens, 0.0)


class Calibrated(Noun):
    """What a profile says of an iteration time beside it; None where that is unknown."""

    profile: str = Field(default="", description="its name; empty where the times were given without one")
    batch_sizes: tuple[int, int] | None = Field(default=None, description="least and greatest of the batch, requests")
    chunk_sizes: tuple[int, int] | None = Field(default=None, description="least and greatest of the chunk, tokens")
    contexts: tuple[int, int] | None = Field(
        default=None, description="least and greatest of a request's context, tokens"
    )
    read_before: tuple[int, int] | None = Field(
        default=None, description="least and most tokens of a prompt read before a chunk"
    )
    measured: str | None = Field(default=None, description="when, a year or a date")
    gpus: int = Field(default=1, ge=1, description="GPUs of the tensor-parallel group that `Gpu` then is")
    kv_memory: str = Field(
        default="", description="how the scenario's KV tokens follow from card and weights, if they do"
    )


class Gpu(Noun):
    """A GPU (or one tensor-parallel engine): its batch, its chunk, its iteration time.

    Where the iteration time depends on the batch, `tau`, `solo`, `gamma` and `kappa` are those of full batches: mixed
    with `B - 1` decodes beside a chunk, solo with `B`, each with `context_tokens` of context. Plans count the batch
    that runs, see `fluidgate.planning.batches`.
    """

    batch_size: int = Field(ge=1, description="most requests in a batch, B")
    chunk_size: int = Field(ge=1, description="prompt tokens read in one iteration, C")
    iteration: IterationTime
    context_tokens: NonNegative = Field(
        default=0.0, description="mean context of a decode, tokens; a scenario sets it from its classes", repr=False
    )
    calibrated: Calibrated = Field(default=Calibrated(), description="what its profile says of it", repr=False)

    @model_validator(mode="after")
    def _iterations_take_time(self) -> Self:
        if self.tau <= 0:
            raise ValueError(f"alpha + beta * chunk_size must be > 0 (it is {self.tau:g} s); raise alpha or chunk_size")
        if self.solo <= 0:
            raise ValueError(f"a solo iteration must take more than 0 s (it takes {self.solo:g} s); raise solo_alpha")
        return self

    @property
    def tau(self) -> float:
        """Seconds of a mixed iteration with a full chunk and a full batch, (3)."""
        beside = self.batch_size - 1
        return self.iteration.mixed(self.chunk_size, beside, beside * self.context_tokens)

    @property
    def solo(self) -> float:
        """Seconds of a solo iteration with a full batch, (2)."""
        return self.iteration.solo(self.batch_size, self.batch_size * self.context_tokens)

    @property
    def gamma(self) -> float:
        """Tokens/s of one decode on a solo GPU with a full batch, (2)."""
        given = self.iteration.gamma
        return given if given is not None and self.iteration.added(1.0) == 0.0 else 1.0 / self.solo

    @property
    def alone(self) -> tuple[float, float, float]:
        """Intercept, slope a decode and slope a token of context of solo iterations of any batch, without a table.

        Where `gamma` is given it is the speed in a full batch of mean context; a smaller one takes less.
        """
        alpha, delta, epsilon = self.iteration.alone
        if self.iteration.gamma is not None:
            alpha = 1.0 / self.iteration.gamma - self.batch_size * (delta + epsilon * self.context_tokens)
        return alpha, delta, epsilon

    def seconds(self, chunk: float, decodes: float, context: float, read: float = 0.0) -> float:
        """Seconds of one iteration of any batch; `context` and `read` as in `IterationTime.mixed`."""
        if chunk > 0.0:
            return self.iteration.mixed(chunk, decodes, context, read)
        if self.iteration.gamma is None:
            return self.iteration.solo(decodes, context)
        alpha, delta, epsilon = self.alone
        return alpha + delta * decodes + epsilon * context + self.iteration.added(decodes)

    def prefill_seconds(self, tokens: int) -> float:
        """Seconds in which a prompt of `tokens` is read by itself, in full chunks and a last one that is not."""
        full, rest = divmod(tokens, self.chunk_size)
        seconds = sum(self._read(self.chunk_size, k * self.chunk_size) for k in range(full))
        return seconds + (max(self._read(rest, tokens - rest), 0.0) if rest else 0.0)

    def _read(self, chunk: int, before: int) -> float:
        """Seconds in which a chunk is read by itself, after `before` tokens of its prompt."""
        return self.iteration.mixed(chunk, read=float(chunk) * before)

    @property
    def kappa(self) -> float:
        """How many times faster a decode runs on a solo GPU than on a mixed one, `gamma * tau`."""
        return self.gamma * self.tau


class Pricing(Noun):
    """Prices per token, and when they are earned: [LDHZ] (21)-(23)."""

    scheme: Scheme = Field(description="'bundled' (all at the last token) or 'separate' (prompt and output apart)")
    prompt: NonNegative = Field(description="price of a prompt token, c_p")
    output: NonNegative = Field(description="price of an output token, c_d")


TOKENS = Pricing(scheme="bundled", prompt=1.0, output=1.0)
"""What plans go by where there are no prices: the tokens of the requests that are served."""
NO_PRICES = Pricing(scheme="bundled", prompt=0.0, output=0.0)


class Indicators(Noun):
    """Service level indicators, [LDHZ] (43)-(48): limits (hard) and weights (penalties)."""

    max_prefill_gap: NonNegative | None = Field(default=None, description="largest x_i - x_j, eta_1")
    max_solo_gap: NonNegative | None = Field(default=None, description="largest y_s,i - y_s,j, eta_2")
    max_tpot: NonNegative | None = Field(default=None, description="largest average time per output token, s, eta_3")
    prefill_gap_weight: NonNegative = Field(default=0.0, description="penalty per unit of prefill gap, eta_1'")
    solo_gap_weight: NonNegative = Field(default=0.0, description="penalty per unit of solo gap, eta_2'")
    tpot_weight: NonNegative = Field(default=0.0, description="penalty per second of average TPOT, eta_3'")

    @property
    def any_limit(self) -> bool:
        """Whether a hard limit is set; each comes with `q_d = 0` for all classes."""
        return any(v is not None for v in (self.max_prefill_gap, self.max_solo_gap, self.max_tpot))

    @property
    def any(self) -> bool:
        """Whether any limit or any weight is set."""
        return self.any_limit or any((self.prefill_gap_weight, self.solo_gap_weight, self.tpot_weight))


class Arrivals(Noun):
    """How the requests of all classes together arrive; the rates of the classes say how many.

    Each request is of a class drawn by rate, independently of the others. Whatever the process, the mean rate in the
    long run is that of the classes.

    - `poisson`: the model's own, [LDHZ] section 2.
    - `gamma`: independent Gamma gaps of the given CV.
    - `mmpp`: Markov-modulated Poisson. The rate stands at one of the `levels` for an exponential time whose mean is its
      entry of `sojourns`, then goes to one of the others, each as likely.
    - `daily`: Poisson with a rate that repeats every `period`, constant over equal parts of it.
    - `closed`: a closed loop. Each of the cluster's `users` sends its next request when its last has left and its think
      time is over, the first at once. The rates of the classes then say their shares alone.

    The Markov network knows the first two.
    """

    process: Process = Field(default="poisson", description="the law of the gaps between arrivals")
    cv: float = Field(
        default=1.0,
        ge=0.001,
        le=100,
        description="coefficient of variation of the gaps; 1 for Poisson, more for bursts",
    )
    levels: tuple[NonNegative, ...] = Field(default=(), description="mmpp: rate of each phase, in any unit")
    sojourns: tuple[Duration, ...] = Field(default=(), description="mmpp: mean time in each phase, s")
    weights: tuple[NonNegative, ...] = Field(
        default=(), description="daily: rate in each part of the period, in any unit"
    )
    period: Duration = Field(default=86_400.0, description="daily: time after which the rate repeats, s")
    users: int | None = Field(default=None, ge=1, le=LARGEST_WHOLE, description="closed: clients of the whole cluster")
    think: NonNegative = Field(
        default=0.0, description="closed: mean time from an answer to the user's next request, s"
    )
    think_law: ThinkLaw = Field(default="fixed", description="closed: law of that time")

    @model_validator(mode="after")
    def _process_has_its_numbers(self) -> Self:
        if self.process != "gamma" and self.cv != 1.0:
            raise ValueError(f"cv must be 1 for {self.process} arrivals (it is {self.cv:g}); give the process 'gamma'")
        if self.process == "mmpp" and not (len(self.levels) == len(self.sojourns) >= 2 and any(self.levels)):
            raise ValueError("mmpp needs two levels or more, one of them above 0, and as many sojourns")
        if self.process == "daily" and not any(self.weights):
            raise ValueError("daily needs weights, one of them above 0")
        if (self.process == "closed") != (self.users is not None):
            raise ValueError("users belong to closed arrivals, and to them only")
        if self.process != "closed" and (self.think, self.think_law) != (0.0, "fixed"):
            raise ValueError("a think time belongs to closed arrivals, and to them only")
        return self

    @property
    def closed(self) -> bool:
        """Whether requests are sent by users who wait for the answer to their last."""
        return self.process == "closed"

    @property
    def gap_shape(self) -> float:
        """Shape of the Gamma distribution of the gaps, `1 / cv^2`; 1 for Poisson."""
        return 1.0 / self.cv**2


class Lengths(Noun):
    """How long the requests of a class are at the fidelity of iterations; the model itself has exponential lengths.

    - `exponential`: geometric on 1, 2, ... with the class's mean.
    - `fixed`: the class's mean, rounded.
    - `lognormal`: with the class's mean and the given CV, rounded at random so that the mean stays.
    - `empirical`: drawn from the class's requests in the traces; prompt and output of one request if both are.
    """

    prompt: LengthLaw = Field(default="exponential", description="law of the prompt lengths")
    output: LengthLaw = Field(default="exponential", description="law of the output lengths")
    prompt_cv: Positive | None = Field(
        default=None, description="lognormal: coefficient of variation of the prompt lengths"
    )
    output_cv: Positive | None = Field(
        default=None, description="lognormal: coefficient of variation of the output lengths"
    )
    traces: tuple[str, ...] = Field(
        default=(), description="empirical: paths of trace files, one a class or with labels"
    )

    @model_validator(mode="after")
    def _lognormal_has_a_cv(self) -> Self:
        for name, law, cv in (("prompt", self.prompt, self.prompt_cv), ("output", self.output, self.output_cv)):
            if (law == "lognormal") != (cv is not None):
                raise ValueError(f"{name}_cv belongs to lognormal lengths, and to them only")
        return self

    @property
    def empirical(self) -> bool:
        """Whether any length is drawn from traces."""
        return "empirical" in (self.prompt, self.output)

    @property
    def files_read(self) -> tuple[str, ...]:
        """Files whose contents are part of what the lengths are: each trace, with and without its class."""
        return tuple(path for text in self.traces for path in dict.fromkeys((text, text.partition("=")[2])) if path)

    @property
    def output_spread(self) -> float:
        """CV of the output lengths; that of exponential ones for empirical lengths, whose traces are not read here."""
        if self.output_cv is not None:
            return self.output_cv
        return 0.0 if self.output == "fixed" else 1.0


EXPONENTIAL = Lengths()
NO_EMPIRICAL_PROMPTS = (
    "prompt: empirical prompts have no prefixes and no turns; give another law, or classes without prefix_tokens, "
    "turns and subagents"
)
"""Said of such a law beside classes that have them."""


@dataclass(frozen=True, repr=False)
class Rates:
    """Service rates and prices of all classes, arrays of shape (classes,).

    Attributes:
        arrival: lambda, requests/s per GPU.
        patience: theta, 1/s.
        prefill: mu_p = C/(P tau), (4), P what is read of a prompt.
        mixed_decode: mu_m = 1/(D tau), (4).
        solo_decode: mu_s = gamma/D, (4).
        prompt_value: c_p P, money earned by a prefill.
        output_value: c_d D, money earned by a decode.
    """

    arrival: Array
    patience: Array
    prefill: Array
    mixed_decode: Array
    solo_decode: Array
    prompt_value: Array
    output_value: Array

    def __repr__(self) -> str:
        return f"<Rates of {several(len(self.arrival), 'class')}>"

    def of_demand(self, demand: Rates) -> Rates:
        """These services for what `demand` says of arrivals, patience and prices."""
        return replace(demand, prefill=self.prefill, mixed_decode=self.mixed_decode, solo_decode=self.solo_decode)

    @property
    def bundled_value(self) -> Array:
        """`w = c_p P + c_d D`, (21)."""
        return self.prompt_value + self.output_value


def mean_context(classes: Iterable[RequestClass], lengths: Lengths = EXPONENTIAL) -> float:
    """Tokens of context of a decode in progress, on average: `P + D (1 + CV^2)/2`, CV that of the output lengths.

    A decode of `d` tokens is in progress for `d` iterations and has written `d/2` on average; so the mean over the
    decodes in progress is `E[d^2/2] / E[d] = D (1 + CV^2)/2`: `D/2` for outputs of one length, `D` for exponential
    ones, of which the long ones are in progress for longer. Prompts, being independent of the outputs, count by their
    mean. Each class counts by its share of the decodes in progress, `lambda D`.
    """
    written = 0.5 * (1.0 + lengths.output_spread**2)
    weighted = [(c.arrival_rate * c.output_tokens, c.prompt_tokens + written * c.output_tokens) for c in classes]
    total = sum(weight for weight, _ in weighted)
    return sum(weight / total * context for weight, context in weighted)


def _distinct(classes: tuple[RequestClass, ...]) -> tuple[RequestClass, ...]:
    names = [c.name for c in classes]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"two classes are named '{twice[0]}'; give each its own name")
    return classes


class Scenario(Drawn, Noun):
    """A cluster and its load, per GPU.

    Without `pricing` nothing is earned, and plans serve as many tokens as they can.

    `cluster_gpus` is set when the load is that of a whole cluster: the arrival rates are then shared by that
    many GPUs, and `for_gpus` shares the same load among another number.
    """

    name: str = Field(min_length=1)
    gpu: Gpu
    pricing: Pricing = TOKENS
    classes: Annotated[tuple[RequestClass, ...], Field(min_length=1), AfterValidator(_distinct)]
    indicators: Indicators = Indicators()
    arrivals: Arrivals = Arrivals()
    lengths: Lengths = Lengths()
    engine: EngineModel = EngineModel()
    targets: Targets = Targets()
    cost: Cost = Field(default=Cost(), repr=False)
    options: tuple[FleetOption, ...] = Field(default=(), repr=False)
    failures: Failures | None = None
    schedule: tuple[Step, ...] = ()
    cluster_gpus: int | None = Field(default=None, ge=1)

    def headline(self) -> str:
        load = sum(each.arrival_rate for each in self.classes)
        gpus = "" if self.cluster_gpus is None else f", {several(self.cluster_gpus, 'GPU')}"
        batch = f"B = {self.gpu.batch_size}, C = {self.gpu.chunk_size}"
        return f"'{self.name}': {several(len(self.classes), 'class')}, {rate(load)} requests/s per GPU, {batch}{gpus}"

    @model_validator(mode="after")
    def _only_a_cache_has_hits(self) -> Self:
        if any(c.prefix_hit_rate for c in self.classes) and not self.engine.prefix_caching:
            raise ValueError("prefix_hit_rate belongs to an engine with prefix_caching, and to it only")
        return self

    @model_validator(mode="after")
    def _context_is_that_of_the_classes(self) -> Self:
        self.__dict__["gpu"] = self._gpu_in_context()
        return self

    @model_validator(mode="after")
    def _sessions_can_be_drawn(self) -> Self:
        for index, problem in subagent_problems(self.of_sessions, "arrival_rate"):
            raise ValueError(f"class '{self.classes[index].name}': {problem}")
        if self.lengths.prompt == "empirical" and self.has_sessions:
            raise ValueError(f"lengths.{NO_EMPIRICAL_PROMPTS}")
        return self

    @staticmethod
    def of(scenario: Scenario | str | os.PathLike[str]) -> Scenario:
        """A scenario as it is, or read from the path of its file.

        Raises:
            FluidgateError: it is neither, or the file is missing or wrong.
        """
        check_kind("scenario", scenario, AnyScenario)
        return scenario if isinstance(scenario, Scenario) else Scenario.load(scenario)

    @staticmethod
    @checked
    def load(path: str | os.PathLike[str]) -> Scenario:
        """Read a scenario file (TOML).

        Raises:
            FluidgateError: the file is missing or wrong; the message names file, key and mend.
        """
        scenario: Scenario = read_scenario(os.fspath(path))
        return scenario

    def to_dict(self) -> dict[str, Any]:
        """What is not at its default, rates per GPU and second; `to_toml` has it as files say it."""
        return {"schema": SCHEMA, **self.model_dump(mode="json", exclude_defaults=True)}

    def to_toml(self) -> str:
        """The text of its file, which `load` reads as an equal scenario."""
        return scenario_text(self)

    @checked
    def write(self, path: str | os.PathLike[str]) -> None:
        """Write its file, whole or not at all.

        Raises:
            FluidgateError: the file can't be written.
        """
        write_whole(os.fspath(path), self.to_toml())

    def to_dataframe(self) -> pd.DataFrame:
        """A row a class: what it says of each."""
        import pandas as pd

        return pd.DataFrame([each.model_dump() for each in self.classes])

    @checked
    def for_gpus(self, gpus: int) -> Scenario:
        """The scenario when `gpus` GPUs share the load; itself when its rates are per GPU."""
        if gpus < 1:
            raise ArgumentError(f"--gpus: must be at least 1, but is {gpus}")
        if self.cluster_gpus is None or gpus == self.cluster_gpus:
            return self
        share = self.cluster_gpus / gpus
        classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * share}) for c in self.classes)
        return self.replace(classes=classes, cluster_gpus=gpus)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As of any noun; the context of the decodes is that of the copy's classes."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__["gpu"] = copy._gpu_in_context()
        return copy

    def _gpu_in_context(self) -> Gpu:
        """The GPU, its decodes with the mean context of the classes where its iteration time depends on that."""
        if not self.gpu.iteration.by_context:
            return self.gpu
        return self.gpu.model_copy(update={"context_tokens": mean_context(self.classes, self.lengths)})

    @property
    def goes_beyond_the_model(self) -> bool:
        """Whether it says what [LDHZ]'s model does not see: a law of more than three numbers, [lengths], [engine],
        [targets], prefixes, sessions.
        """
        return (
            self.gpu.iteration.by_batch
            or self.lengths != EXPONENTIAL
            or self.engine != EngineModel()
            or self.targets != Targets()
            or any(c.ttft_target or c.tpot_target for c in self.classes)
            or self.has_sessions
        )

    @property
    def has_fleet(self) -> bool:
        """Whether GPUs fail, or are started and drained."""
        return self.failures is not None or len(self.schedule) > 0

    @property
    def has_sessions(self) -> bool:
        """Whether requests of a class share text, or are followed by others."""
        return any(c.shares_text or c.has_sessions for c in self.classes)

    @property
    def of_sessions(self) -> list[ClassOfSessions]:
        """How many sessions of each class start, 1/s per GPU."""
        return [ClassOfSessions(c.name, c.arrival_rate, c) for c in self.classes]

    @property
    def session_starts(self) -> Array:
        """Sessions that start by themselves, not as sub-agents, 1/s per GPU, shape (classes,)."""
        return np.array(own_starts(self.of_sessions))

    @property
    def priced(self) -> bool:
        """Whether it has prices."""
        return "pricing" in self.model_fields_set

    @property
    def prices(self) -> Pricing:
        """What is earned, nothing without prices."""
        return self.pricing if self.priced else NO_PRICES

    def need_prices(self, what: str) -> None:
        """Refuse the scenario where `what` is about money and it has no prices.

        Raises:
            FluidgateError: naming the mend.
        """
        if not self.priced:
            raise FluidgateError(
                f"scenario '{self.name}': pricing: missing, and {what} weighs what is earned; add a table [pricing] "
                "with scheme, prompt and output"
            )

    @property
    def mean_output_tokens(self) -> float:
        """Output length over the requests of all classes, tokens."""
        arrivals = sum(c.arrival_rate for c in self.classes)
        return sum(c.arrival_rate * c.output_tokens for c in self.classes) / arrivals

    @property
    def class_names(self) -> list[str]:
        return [c.name for c in self.classes]

    @property
    def ttft_targets(self) -> tuple[float | None, ...]:
        """TTFT target of each class, its own or the scenario's, s; None for none."""
        return tuple(c.ttft_target or self.targets.ttft for c in self.classes)

    @property
    def tpot_targets(self) -> tuple[float | None, ...]:
        """TPOT target of each class, its own or the scenario's, s; None for none."""
        return tuple(c.tpot_target or self.targets.tpot for c in self.classes)

    @property
    def hit_rates(self) -> Array:
        """Share of the prompt tokens that are found in memory, shape (classes,); 0 without prefix caching."""
        return np.array([c.found_share if self.engine.prefix_caching else 0.0 for c in self.classes])

    @property
    def shared_tokens(self) -> Array:
        """Tokens, in whole blocks, with which all prompts of a class begin, at best, and which a memory holds once for
        all of them, shape (classes,); 0 without prefix caching.
        """
        block = self.engine.kv_block
        full = [c.prefix_tokens // block * block if self.engine.prefix_caching else 0 for c in self.classes]
        return np.array(full, float)

    @property
    def reading(self) -> Array:
        """Tokens of a prompt that are read, one at least, shape (classes,)."""
        prompt = np.array([c.prompt_tokens for c in self.classes])
        return np.asarray(np.maximum(prompt * (1.0 - self.hit_rates), np.minimum(prompt, 1.0)))

    @property
    def rates(self) -> Rates:
        """Service rates, (4), and prices, as arrays over the classes (computed anew at each call: keep it).

        A prefill takes as long as what is read of its prompt; the price is that of the whole.
        """
        prompt = np.array([c.prompt_tokens for c in self.classes])
        output = np.array([c.output_tokens for c in self.classes])
        tau = self.gpu.tau
        return Rates(
            arrival=np.array([c.arrival_rate for c in self.classes]),
            patience=np.array([c.patience_rate for c in self.classes]),
            prefill=self.gpu.chunk_size / (self.reading * tau),
            mixed_decode=1.0 / (output * tau),
            solo_decode=self.gpu.gamma / output,
            prompt_value=self.pricing.prompt * prompt,
            output_value=self.pricing.output * output,
        )


AnyScenario = Scenario | str | os.PathLike[str]
"""A scenario, or the path of its file."""
