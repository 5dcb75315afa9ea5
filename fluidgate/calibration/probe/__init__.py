"""Iteration times of a transformer with random weights, measured in plain PyTorch.

`import torch` (the extra `fluidgate[probe]`) happens only once a probe starts.
"""

from fluidgate.calibration.probe.measurements import Measurement, Measurements
from fluidgate.calibration.probe.probe import probe
from fluidgate.calibration.probe.settings import Case, Settings
from fluidgate.calibration.probe.shape import PRESETS, Shape, preset

__all__ = ["PRESETS", "Case", "Measurement", "Measurements", "Settings", "Shape", "preset", "probe"]
