"""Streams of requests for the simulator of iterations: arrivals and lengths, block by block, in bounded memory."""

from fluidgate.workloads.streams.assignment import (
    AnyTraces,
    ClassTrace,
    assign_traces,
    length_traces,
    notes_on,
    read_class_traces,
    trace_lengths,
)
from fluidgate.workloads.streams.drawn import drawn_requests
from fluidgate.workloads.streams.replay import (
    Replay,
    check_played,
    matching_scale,
    rates_of,
    replayed_requests,
    replayed_script,
)
from fluidgate.workloads.streams.requests import BLOCK, NOTHING, REQUEST, Requests, until
from fluidgate.workloads.streams.script import NO_SCRIPT, PIECE, Pieces, Script
from fluidgate.workloads.streams.sessions import DrawnSessions, drawn_sessions
from fluidgate.workloads.streams.starts import check_starts, sent_times, starting_span
from fluidgate.workloads.streams.texts import Texts, found_tokens, new_tokens, prefix_share, texts_of

__all__ = [
    "BLOCK",
    "NOTHING",
    "NO_SCRIPT",
    "PIECE",
    "REQUEST",
    "AnyTraces",
    "ClassTrace",
    "DrawnSessions",
    "Pieces",
    "Replay",
    "Requests",
    "Script",
    "Texts",
    "assign_traces",
    "check_played",
    "check_starts",
    "drawn_requests",
    "drawn_sessions",
    "found_tokens",
    "length_traces",
    "matching_scale",
    "new_tokens",
    "notes_on",
    "prefix_share",
    "rates_of",
    "read_class_traces",
    "replayed_requests",
    "replayed_script",
    "sent_times",
    "starting_span",
    "texts_of",
    "trace_lengths",
    "until",
]
