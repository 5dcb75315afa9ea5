"""Where independent jobs run: this process, worker processes, a Ray cluster; and results that are kept."""

from fluidgate.execution.choice import executor_named
from fluidgate.execution.executor import Executor, InProcess
from fluidgate.execution.kept import Kept
from fluidgate.execution.local import LocalProcesses, default_executor

__all__ = ["Executor", "InProcess", "Kept", "LocalProcesses", "default_executor", "executor_named"]
