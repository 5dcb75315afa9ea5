"""Iteration times: measured, and fitted to the model."""

from fluidgate.calibration.batch_calibration import BatchCalibration, calibrate_batches
from fluidgate.calibration.calibration import Calibration, calibrate
from fluidgate.calibration.measured_table import law_for
from fluidgate.calibration.measurements import Measurements, read_measurements

__all__ = [
    "BatchCalibration",
    "Calibration",
    "Measurements",
    "calibrate",
    "calibrate_batches",
    "law_for",
    "read_measurements",
]
