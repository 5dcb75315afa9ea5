"""How the plan of a policy followed the load: how often it was solved, and the mixed group over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fluidgate.model import Array
from fluidgate.policies.decisions.stages import PREFILL
from fluidgate.replanning import Replanning
from fluidgate.shown import Brief
from fluidgate.simulation.iteration.replanned import Look, Replanned
from fluidgate.simulation.statistics import Statistic, statistic
from fluidgate.trajectory import Trajectory


@dataclass(frozen=True, repr=False)
class PlanPath(Brief):
    """The plans of a policy over time; what is at a look was in force, or there, until then.

    Paths have shape (looks,), the mean over the replications for as long as all of them go on.

    Attributes:
        replanning: the rule.
        solved: how many times the plan was solved again, a replication.
        changed: how often that gave other tables.
        kept: how often there was no plan for the estimates, and the one in force stayed.
        time: of the looks, s.
        mixed_planned: GPUs that read prompts by the plan, `n sum x*`.
        mixed_target: GPUs of the mixed group by the policy's tables; all GPUs where it keeps no groups.
        mixed_gpus: those that were in it, the ones about to leave it included.
        reading: GPUs with a prefill under way.
        targets: of the plan, per GPU.
    """

    replanning: Replanning
    solved: Statistic
    changed: Statistic
    kept: Statistic
    time: Array
    mixed_planned: Array
    mixed_target: Array
    mixed_gpus: Array
    reading: Array
    targets: Trajectory = field(repr=False, compare=False)

    @staticmethod
    def of(replanning: Replanning, gpus: int, runs: Sequence[Replanned]) -> PlanPath:
        """One run a replication."""
        shared = min(len(run.looks) for run in runs)

        def path(seen: Callable[[Look], Any]) -> Array:
            each = [[seen(look) for look in run.looks[:shared]] for run in runs]
            return np.asarray(np.array(each, np.float64).mean(axis=0))

        time = path(lambda look: look.at)
        return PlanPath(
            replanning=replanning,
            solved=statistic([run.solved for run in runs]),
            changed=statistic([run.changed for run in runs]),
            kept=statistic([run.kept for run in runs]),
            time=time,
            mixed_planned=path(lambda look: gpus * look.plan.mixed_fraction),
            mixed_target=path(lambda look: look.mixed_target),
            mixed_gpus=path(lambda look: look.mixed_gpus),
            reading=path(lambda look: look.counts[PREFILL].sum()),
            targets=Trajectory(
                time=time,
                prefill_queue=path(lambda look: look.plan.prefill_queue),
                prefill=path(lambda look: look.plan.prefill),
                decode_queue=path(lambda look: look.plan.decode_queue),
                mixed_decode=path(lambda look: look.plan.mixed_decode),
                solo_decode=path(lambda look: look.plan.solo_decode),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        rule = self.replanning
        return {
            "every": None if math.isinf(rule.period) else rule.period,
            "look_every": rule.look,
            "estimate_over": rule.window,
            "moved": rule.moved,
            "deviations": rule.deviations,
            "solved": self.solved.to_dict(),
            "changed": self.changed.to_dict(),
            "kept": self.kept.to_dict(),
            "mixed_group": {
                "time": self.time.tolist(),
                "planned": self.mixed_planned.tolist(),
                "target": self.mixed_target.tolist(),
                "gpus": self.mixed_gpus.tolist(),
                "reading": self.reading.tolist(),
            },
        }
