"""The free parameters of a policy, tuned to the size of a cluster by simulation."""

from fluidgate.tuning.result import Trial, Tuning
from fluidgate.tuning.tune import tune

__all__ = ["Trial", "Tuning", "tune"]
