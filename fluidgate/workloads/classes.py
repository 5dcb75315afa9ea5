"""Request classes from traces: which request belongs to which class, and each class's rate and mean lengths.

Several traces are overlaid, each from its own first arrival. A trace of span `T` seconds (first arrival to
last) gives each of its requests the rate `1/T`. A class's arrival rate is the sum of these over its requests
(its count over the span, where it comes from one trace), its mean lengths are the means weighted by them. Where a trace
does not say when its sessions start, `T` is their number over the rate at which they are to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.shown import Brief, rate, several
from fluidgate.workloads.names import distinct_names, short_names
from fluidgate.workloads.session_summary import SessionSummary, summary_of
from fluidgate.workloads.streams import found_tokens, starting_span, texts_of
from fluidgate.workloads.traces import Trace

RESTARTS = 10


@dataclass(frozen=True, repr=False)
class TraceClass(Brief):
    """The requests of one class; arrays of shape (requests,), or (gaps,) for the last.

    Attributes:
        name: distinct from the other classes'.
        arrival_rate: requests/s.
        prompt_tokens: prompt lengths.
        output_tokens: output lengths.
        weights: the rate that each request stands for, 1/s; they add up to `arrival_rate`.
        gaps: seconds between successive arrivals of the class, within each trace; none where requests wait for answers.
        found: leading tokens of each prompt that earlier ones of its trace had (`found_tokens`), what an endless memory
            would hold of it; nan where a trace does not say.
        sessions: those that its requests are of; None where no trace says.
    """

    name: str
    prompt_tokens: Array
    output_tokens: Array
    weights: Array
    gaps: Array
    found: Array | None = None
    sessions: SessionSummary | None = None

    def headline(self) -> str:
        lengths = f"{rate(self.mean_prompt)} prompt and {rate(self.mean_output)} output tokens on average"
        return f"'{self.name}': {several(len(self), 'request')}, {lengths}"

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def arrival_rate(self) -> float:
        return float(self.weights.sum())

    @property
    def prefix_hit_rate(self) -> float | None:
        """Share of its prompt tokens that an endless memory would hold; None where no trace says what prompts share."""
        known = np.empty(0, bool) if self.found is None else np.isfinite(self.found)
        if self.found is None or not known.any():
            return None
        weights = self.weights[known]
        return float((weights @ self.found[known]) / (weights @ self.prompt_tokens[known]))

    @property
    def found_share(self) -> float | None:
        """The same over all its prompt tokens: those of which no trace says anything count as not found."""
        if self.found is None or self.prefix_hit_rate is None:
            return None
        return float((self.weights @ np.nan_to_num(self.found)) / (self.weights @ self.prompt_tokens))

    @property
    def mean_prompt(self) -> float:
        """Mean prompt length, tokens."""
        return float(np.average(self.prompt_tokens, weights=self.weights))

    @property
    def mean_new(self) -> float:
        """Mean of what an endless memory would not hold of its prompts, tokens."""
        return self.mean_prompt * (1.0 - (self.found_share or 0.0))

    @property
    def mean_output(self) -> float:
        """Mean output length, tokens."""
        return float(np.average(self.output_tokens, weights=self.weights))


def classes_of(
    traces: Sequence[Trace],
    clusters: int | None = None,
    seed: int = 0,
    names: Sequence[str | None] | None = None,
    sessions_rate: float | None = None,
) -> list[TraceClass]:
    """The classes of the overlaid traces.

    Requests belong to the class that `names` has for their trace. Where that is None, they are told apart by their
    labels where every such trace has them, else by the trace that they come from; with `clusters`, by k-means on the
    standardised logarithms of both lengths over all traces (best of 10 starts drawn from `seed`); of prompts what an
    endless memory would not hold, where a trace says what they share. Clusters are named by their mean lengths, such as
    `p2048-d28`, or `n512-d28` where only what is new of a prompt counts, busiest first.

    Args:
        sessions_rate: starts of sessions a second, over all traces that do not say when theirs start.

    Raises:
        FluidgateError: a trace gives no rate, only some of the traces have labels, or there are fewer
            distinct requests than clusters.
    """
    spans = [starting_span(trace, traces, sessions_rate) for trace in traces]
    for trace in traces:
        if not trace.by_answers and (len(trace) < 2 or not 0 < trace.span < np.inf):
            raise FluidgateError(
                f"{trace.source}: {len(trace)} request(s) over {trace.span:g} s give no arrival rate; "
                "give a trace with at least 2 requests at different times"
            )
    if clusters is not None:
        return _clusters(traces, spans, clusters, seed)
    given = names if names is not None else [None] * len(traces)
    unnamed = [trace for trace, name in zip(traces, given, strict=True) if name is None]
    unlabelled = [trace for trace in unnamed if trace.labels is None]
    if unlabelled and len(unlabelled) < len(unnamed):
        labelled = next(trace for trace in unnamed if trace.labels is not None)
        raise FluidgateError(
            f"{unlabelled[0].source}: has no class column, but {labelled.source} has; "
            "add the column, or remove it from the other file"
        )
    short = iter(short_names([trace.source for trace in unlabelled]) if unlabelled else ())
    members: list[NDArray[np.object_]] = []
    for trace, name in zip(traces, given, strict=True):
        if name is None and trace.labels is not None:
            members.append(trace.labels)
        else:
            members.append(np.full(len(trace), next(short) if name is None else name, dtype=object))
    return _by_member(traces, spans, np.concatenate(members))


def _clusters(traces: Sequence[Trace], spans: Sequence[float], clusters: int, seed: int) -> list[TraceClass]:
    lengths = np.log(np.concatenate([np.column_stack([_still_to_read(t), t.output_tokens]) for t in traces]))
    distinct = len(np.unique(lengths, axis=0))
    if not 1 <= clusters <= distinct:
        raise FluidgateError(
            f"--classes: {clusters} asked for; give a number from 1 to {distinct}, the distinct pairs of lengths"
        )
    found = _by_member(traces, spans, _k_means(lengths, clusters, seed))
    found.sort(key=lambda c: -c.arrival_rate)
    shares = any(trace.says_texts for trace in traces)
    first = [f"n{c.mean_new:.0f}" if shares else f"p{c.mean_prompt:.0f}" for c in found]
    names = distinct_names([f"{name}-d{c.mean_output:.0f}" for name, c in zip(first, found, strict=True)])
    return [replace(c, name=name) for c, name in zip(found, names, strict=True)]


def _k_means(points: Array, clusters: int, seed: int) -> NDArray[np.int32]:
    """The cluster of each point, from the start that ends with the least squared distance."""
    from scipy.cluster.vq import ClusterError, kmeans2

    scatter = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(scatter > 0, scatter, 1.0)
    rng = np.random.default_rng(seed)
    best: NDArray[np.int32] | None = None
    least = np.inf
    for _ in range(RESTARTS):
        try:
            centres, members = kmeans2(scaled, clusters, minit="++", missing="raise", rng=rng)
        except ClusterError:
            continue
        distance = float(((scaled - centres[members]) ** 2).sum())
        if distance < least:
            best, least = members, distance
    if best is None:
        raise FluidgateError(f"--classes: no split into {clusters} found; ask for fewer")
    return best


def _by_member(traces: Sequence[Trace], spans: Sequence[float], members: NDArray[Any]) -> list[TraceClass]:
    """One class for each distinct value of `members`, in order of appearance."""
    import pandas as pd

    arrival = np.concatenate([trace.arrival_time for trace in traces])
    prompt = np.concatenate([trace.prompt_tokens for trace in traces]).astype(float)
    output = np.concatenate([trace.output_tokens for trace in traces]).astype(float)
    origin = np.repeat(np.arange(len(traces)), [len(trace) for trace in traces])
    weights = np.array([1.0 / span for span in spans])[origin]
    found = np.concatenate([_found(trace) for trace in traces])
    timed = np.array([not trace.by_answers for trace in traces])[origin]
    first = np.cumsum([0, *(len(trace) for trace in traces)])
    codes, names = pd.factorize(members)
    classes = []
    for code, name in enumerate(names):
        own = np.flatnonzero(codes == code)
        same_trace = (np.diff(origin[own]) == 0) & timed[own[1:]]
        gaps = np.diff(arrival[own])[same_trace]
        chosen = codes == code
        sessions = summary_of(
            [
                (trace.sessions, chosen[begin : begin + len(trace)])
                for trace, begin in zip(traces, first, strict=False)
                if trace.sessions is not None
            ]
        )
        classes.append(TraceClass(str(name), prompt[own], output[own], weights[own], gaps, found[own], sessions))
    return classes


def _still_to_read(trace: Trace) -> Array:
    """Tokens of each prompt that an endless memory would not hold, 1 at least; all of it where a trace does not say."""
    return np.maximum(trace.prompt_tokens - np.nan_to_num(_found(trace)), 1.0)


def _found(trace: Trace) -> Array:
    if not trace.says_texts:
        return np.full(len(trace), np.nan)
    texts = texts_of(trace)
    found: Array = found_tokens(texts.pieces, texts.text, trace.prompt_tokens).astype(float)
    return found
