"""Iteration times of an engine that runs, measured over its API alone, as any client sees it."""

from fluidgate.calibration.live_probe.measurements import Probed, Row
from fluidgate.calibration.live_probe.probe import dry_run, probe_engine, probe_live
from fluidgate.calibration.live_probe.settings import Settings

__all__ = ["Probed", "Row", "Settings", "dry_run", "probe_engine", "probe_live"]
