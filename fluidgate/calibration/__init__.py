"""Iteration times: measured, and fitted to the model."""

from fluidgate.calibration.batch_calibration import BatchCalibration, calibrate_batches
from fluidgate.calibration.calibration import Calibration, calibrate
from fluidgate.calibration.measurements import Measurements, read_measurements

__all__ = [
    "BatchCalibration",
    "Calibration",
    "Measurements",
    "calibrate",
    "calibrate_batches",
    "read_measurements",
]
