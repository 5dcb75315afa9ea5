"""GPUs of several types that serve together: the answer beside those of one type each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor
from fluidgate.model import Scenario
from fluidgate.planning.batches.mixed import Mixture
from fluidgate.progress import Progress
from fluidgate.sizing.answer import Answer, OneLess, Pool, Status
from fluidgate.sizing.bounded import Bounded
from fluidgate.sizing.choices import Choice
from fluidgate.sizing.cost import Bill, Paid
from fluidgate.sizing.load import Load
from fluidgate.sizing.mix import Mix, MixPlan
from fluidgate.sizing.mixed_runs import MixedTrial
from fluidgate.sizing.mixed_search import MixedSearch
from fluidgate.sizing.search import run


@dataclass(frozen=True)
class Together:
    """What comes of a mix.

    Attributes:
        answers: one or none.
        pruned: the mix, where it can't win.
        remarks: what a reader should know, a sentence each.
    """

    answers: tuple[Answer, ...] = ()
    pruned: tuple[Mix, ...] = ()
    remarks: tuple[str, ...] = ()


def check_mixed(scenario: Scenario, choices: Sequence[Choice]) -> None:
    """Refuse what is no mix, and loads that can't be split.

    Raises:
        FluidgateError: naming the mend.
    """
    if len({_type(each) for each in choices}) < 2:
        raise FluidgateError(
            f"--mixed: all choices are of one type of GPU, '{choices[0].profile}'; give two --profile or more, or a "
            "table [[options]] for each"
        )
    without = {
        "arrivals.users": scenario.arrivals.closed and "a closed loop waits for the whole cluster",
        "subagents": any(c.subagents for c in scenario.classes) and "sessions of one class set off those of another",
        "failures": scenario.has_fleet and "GPUs fail, or are scheduled, in a fleet of one type",
    }
    for key, reason in without.items():
        if reason:
            raise FluidgateError(f"--mixed: {key}: {reason}, so its load is not split; leave out --mixed or {key}")


def served_together(
    bounded: Sequence[Bounded],
    answers: Sequence[Answer],
    load: Load,
    spare: int,
    max_gpus: int | None,
    executor: Executor,
    progress: Progress | None,
) -> Together:
    """The cheapest fleet of several types that keeps the targets, of each type the setting that is cheapest alone."""
    types = _types(bounded, answers)
    mix = Mix(tuple(each.choice for each in types))
    plan = MixPlan.of(mix, load, [each.ranks for each in types], max_gpus, spare)
    bound = plan.bound()
    best = min((each.hourly or math.inf for each in answers if each.status == "met"), default=math.inf)
    if bound is not None and bound.cost >= best * (1.0 - 1e-9):
        return Together(pruned=(mix,))
    search = MixedSearch(plan)
    run([search], load.logged_work, executor, progress)
    answer = _answer(types, plan, search, bound)
    if answer.status == "met" and best < math.inf and len(answer.fleet) == 1:
        return Together(
            remarks=(
                f"--mixed: no mix of GPU types is cheaper than one of them, {answer.fleet[0].choice.profile}, alone",
            )
        )
    return Together(answers=(answer,))


def _type(choice: Choice) -> tuple[str, float | None]:
    return choice.profile, choice.gpu_hour


def _types(bounded: Sequence[Bounded], answers: Sequence[Answer]) -> list[Bounded]:
    """Of each type of GPU the choice of its best answer, or the one that needs the least by the program."""
    place = {each.choice: each.order for each in answers if each.status == "met"}
    found: dict[tuple[str, float | None], Bounded] = {}
    for each in sorted(bounded, key=lambda b: (place.get(b.choice, (1, 0.0, 0.0)), b.hourly_in_fractions)):
        found.setdefault(_type(each.choice), each)
    return list(found.values())


def _answer(types: Sequence[Bounded], plan: MixPlan, search: MixedSearch, bound: Mixture | None) -> Answer:
    found, whole, spare, mix = search.found, search.whole, plan.spare, plan.mix
    trials = _one_each(search)
    least = 0 if bound is None else int(bound.engines.sum())
    cost = None if bound is None else bound.cost
    if found is None or found.proof is None or whole is None:
        status, reason = _why_not(search)
        return Answer(mix, status, None, spare, least, None, None, None, None, None, trials, reason, (), cost)
    shares = whole.shares
    assert shares is not None
    names = mix.choices[0].scenario.class_names
    fleet = tuple(
        Pool(choice, count, dict(zip(names, map(float, shares[:, kind]), strict=True)), _one_less(search, kind))
        for kind, (choice, count) in enumerate(zip(mix.choices, found.engines, strict=True))
        if count
    )
    paid = [
        Paid(types[kind].choice.hourly(found.engines[kind]), result, types[kind].need)
        for kind, result in zip(whole.kinds, whole.results, strict=True)
    ]
    carried = plan.carried(found.engines)
    return Answer(
        choice=Mix(mix.choices, tuple(each.choice for each in fleet)),
        status="met",
        engines=sum(found.engines),
        spare=spare,
        bound_engines=least,
        proof=found.proof,
        whole=whole,
        one_less=max(fleet, key=lambda each: each.choice.hourly(1)).one_less,
        bill=Bill.of(paid),
        utilisation=None if not carried else 1.0 / carried,
        trials=trials,
        reason=_open(search),
        fleet=fleet,
        bound_hourly=cost,
    )


def _one_each(search: MixedSearch) -> tuple[MixedTrial, ...]:
    """The deciding trial of each fleet, the cheapest first."""
    found: dict[tuple[int, ...], MixedTrial] = {}
    for each in (*search.missed, *search.tried.values()):
        if each.proof is not None:
            found[each.engines] = each.proof
    return tuple(sorted(found.values(), key=lambda trial: search.plan.mix.hourly(trial.bought)))


def _one_less(search: MixedSearch, kind: int) -> OneLess | None:
    tried = search.less(kind)
    return None if tried is None else OneLess.of(tried.proof, sum(tried.engines))


def _open(search: MixedSearch) -> str | None:
    undecided = [
        choice.profile
        for kind, choice in enumerate(search.plan.mix.choices)
        if (tried := search.less(kind)) and tried.proof and tried.proof.status == "undecided"
    ]
    if not undecided:
        return None
    return f"undecided with one engine of {' or '.join(undecided)} less, too near to a limit to tell"


def _why_not(search: MixedSearch) -> tuple[Status, str]:
    trials = [each.proof for each in search.missed if each.proof is not None]
    if not trials:
        return "impossible", "the engines that there are do not serve the load; give more, or less load"
    last = trials[-1]
    status: Status = "undecided" if any(trial.status == "undecided" for trial in trials) else "impossible"
    engines = " + ".join(
        f"{count} of {c.profile}" for c, count in zip(search.plan.mix.choices, last.bought, strict=True)
    )
    worst = last.binding
    return status, (
        f"{worst.target.name} is {worst.value:.4g} with {engines}, the last of {len(search.missed)} fleets that were "
        "tried; give another limit, other sizes, or faster GPUs"
    )
