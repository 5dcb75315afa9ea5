"""Iteration times: measured, and fitted to the model."""

from fluidgate.calibration.calibration import Calibration, calibrate
from fluidgate.calibration.measurements import Measurements, read_measurements

__all__ = ["Calibration", "Measurements", "calibrate", "read_measurements"]
