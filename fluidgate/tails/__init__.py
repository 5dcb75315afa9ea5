"""The theory of tails: laws of TTFT, TPOT and latency predicted without simulation, in milliseconds."""

from fluidgate.tails.density import Time
from fluidgate.tails.predict import predict
from fluidgate.tails.prediction import MEASURES, QUANTILES, ClassPrediction, Measure, Prediction

__all__ = ["MEASURES", "QUANTILES", "ClassPrediction", "Measure", "Prediction", "Time", "predict"]
