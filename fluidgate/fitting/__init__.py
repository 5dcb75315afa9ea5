"""An iteration time fitted to an engine's log: the log is replayed, compared and replayed again."""

from fluidgate.fitting.calibrate import What, calibrate_from_log
from fluidgate.fitting.coefficients import LIKELY
from fluidgate.fitting.result import Coefficient, LogCalibration

__all__ = ["LIKELY", "Coefficient", "LogCalibration", "What", "calibrate_from_log"]
