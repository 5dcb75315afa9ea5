"""Iteration times fitted to a run's own log: replayed, compared, and replayed again."""

from fluidgate.fitting.calibrate import calibrate_from_log as calibrate_from_log
from fluidgate.fitting.result import LogCalibration as LogCalibration
