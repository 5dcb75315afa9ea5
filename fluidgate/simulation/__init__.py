"""Simulators: the Markov network, GPU by GPU, and what they measure."""

from fluidgate.simulation.results import Comparison, SimulationResult
from fluidgate.simulation.simulate import compare, simulate
from fluidgate.simulation.statistics import Statistic

__all__ = ["Comparison", "SimulationResult", "Statistic", "compare", "simulate"]
