"""Streams of requests for the simulator of iterations: arrivals and lengths, block by block, in bounded memory."""

from fluidgate.workloads.streams.assignment import ClassTrace, assign_traces, notes_on, read_class_traces, trace_lengths
from fluidgate.workloads.streams.drawn import drawn_requests
from fluidgate.workloads.streams.replay import Replay, matching_scale, replayed_requests
from fluidgate.workloads.streams.requests import BLOCK, REQUEST, Requests, until

__all__ = [
    "BLOCK",
    "REQUEST",
    "ClassTrace",
    "Replay",
    "Requests",
    "assign_traces",
    "drawn_requests",
    "matching_scale",
    "notes_on",
    "read_class_traces",
    "replayed_requests",
    "trace_lengths",
    "until",
]
