"""Policies on the same arrivals: from their behaviours to results, the same way at every fidelity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

from fluidgate.errors import FluidgateError
from fluidgate.execution import Executor, InProcess, default_executor
from fluidgate.model import Scenario
from fluidgate.progress import Progress
from fluidgate.simulation.options import Options
from fluidgate.simulation.plans import Plans
from fluidgate.wording import named

SMALL = 10_000_000
"""Events under which starting worker processes takes longer than the simulation itself."""

Tell = Callable[[int], None]
"""Called with the steps of a job that are done."""

Behaviour = TypeVar("Behaviour")
"""A policy as a fidelity runs it."""
JobT = TypeVar("JobT")
"""All that one replication of one policy depends on; it is sent to workers."""
Measured = TypeVar("Measured")
"""What a job gives."""
Result = TypeVar("Result", covariant=True)
"""Of a policy, over all replications."""


class Study(ABC, Generic[Behaviour, JobT, Measured, Result]):
    """Policies of a scenario under the same options; each fidelity says what its jobs are and how they run.

    Attributes:
        scenario: its load shared by the GPUs.
        options: of the simulation.
        policies: as they were asked for, fit to run.
        by_iterations: whether chunks are as full as their prompts.
    """

    by_iterations: ClassVar[bool] = False

    scenario: Scenario
    options: Options
    policies: Sequence[Behaviour]

    def results(
        self, *, executor: Executor | None = None, workers: int | None = None, progress: Progress | None = None
    ) -> list[Result]:
        """Run all replications; a result for each policy, in their order.

        Args:
            executor: where replications run; processes on this machine if None.
            workers: processes; one a core by default.
            progress: called with what is done and what there is to do.

        Raises:
            FluidgateError: a policy's plan is infeasible, a request or a decision function is wrong, or jobs that stay
                in this process were given another executor.
        """
        plans = Plans(self.scenario, self.options.gpus, by_iterations=self.by_iterations)
        size = self.options.replications
        ready = [self.ready(policy, plans) for policy in self.policies]
        jobs = [self.job(policy, replication) for policy in ready for replication in range(size)]
        if executor is None:
            executor = InProcess() if self.stays else executor_for(self.events * len(jobs), len(jobs), workers)
        elif self.stays and not isinstance(executor, InProcess):
            log = named("--log", "take_log")
            raise FluidgateError(f"{log}: is written where the requests are; leave it out, or --executor and --keep")
        self.prepare(jobs)
        measured = list(self._measured(jobs, executor, progress))
        return [self.result(policy, plans, measured[k * size : (k + 1) * size]) for k, policy in enumerate(ready)]

    def _measured(self, jobs: Sequence[JobT], executor: Executor, progress: Progress | None) -> Iterator[Measured]:
        tell = progress or _nobody
        if not isinstance(executor, InProcess):
            for k, measured in enumerate(executor.map(self.work, jobs)):
                yield measured
                tell(k + 1, len(jobs))
            return
        steps = self.steps
        for k, job in enumerate(jobs):
            yield self.run_here(job, partial(_tell, tell, steps * k, steps * len(jobs)) if progress else None)
            tell(steps * (k + 1), steps * len(jobs))

    @property
    @abstractmethod
    def events(self) -> float:
        """Arrivals, prefills and decodes of a replication in which nobody leaves."""

    @property
    def steps(self) -> int:
        """Of a job in this process, as progress counts them."""
        return 1

    @property
    def stays(self) -> bool:
        """Whether jobs can only run in this process, one after the other."""
        return False

    @property
    @abstractmethod
    def work(self) -> Callable[[Any], Measured]:
        """Runs a job in a worker: a function of a module, for it is sent there."""

    def run_here(self, job: JobT, tell: Tell | None) -> Measured:
        """Run a job in this process."""
        return self.work(job)

    @abstractmethod
    def ready(self, policy: Behaviour, plans: Plans) -> Behaviour:
        """The policy with all that its jobs need."""

    @abstractmethod
    def job(self, policy: Behaviour, replication: int) -> JobT:
        """One replication of a policy that is ready."""

    @abstractmethod
    def prepare(self, jobs: Sequence[JobT]) -> None:
        """Compile before the work is handed out, so that every process finds the shipped kernels on disk."""

    @abstractmethod
    def result(self, policy: Behaviour, plans: Plans, measured: Sequence[Measured]) -> Result:
        """Of one policy from its replications."""


def executor_for(events: float, jobs: int, workers: int | None) -> Executor:
    """Where `jobs` jobs of so many events in all run; this process where starting others takes longer."""
    if workers is not None and workers < 1:
        raise FluidgateError(f"--workers: must be at least 1, but is {workers}")
    if workers is None and events < SMALL:
        return InProcess()
    return default_executor(workers, jobs)


def refuse_duplicates(names: Sequence[str]) -> None:
    """Refuse a policy that is named twice.

    Raises:
        FluidgateError: it is.
    """
    for name in names:
        if names.count(name) > 1:
            raise FluidgateError(f"--policy: '{name}' is named twice; name each policy once")


def _tell(progress: Progress, before: int, all_steps: int, done: int) -> None:
    progress(before + done, all_steps)


def _nobody(done: int, all_steps: int) -> None:
    pass
