"""Tables of tiny systems, whose numbers are free, for the code under test."""

from __future__ import annotations

import dataclasses

import numpy as np

from fluidgate import Plan, find_policy, plan
from fluidgate.policies import Tables
from tests.oracles.tiny import TinySystem


def tables_for(system: TinySystem) -> Tables:
    """The policy's tables from the system's free numbers in the place of an optimal plan."""
    solved = plan(system.scenario, with_indicators=False)
    given: Plan = dataclasses.replace(
        solved,
        prefill=np.array(system.prefill),
        prefill_queue=np.array(system.queue),
        mixed_decode=np.array(system.mixed_decode),
        solo_decode=np.array(system.solo_decode),
        mixed_fraction=float(sum(system.prefill)),
    )
    tables = find_policy(system.policy).tabulate(given, system.gpus)
    if system.policy == "index-and-pool":  # what it takes from duals, which these free numbers do not have
        tables = tables._replace(
            priority=np.array(system.network.priority),
            hold=np.array(system.hold or (0,) * len(system.prefill)),
            ready=system.ready,
        )
    return tables
