"""Files that are parts of one trace, such as an hour each: told, and joined one after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from fluidgate.model import Array
from fluidgate.workloads.blocks import Blocks
from fluidgate.workloads.names import shared_name, stem_of
from fluidgate.workloads.sessions import Sessions
from fluidgate.workloads.traces import Trace

SEAM = 0.01
"""Share of the shorter trace by which parts may overlap: files are also cut by when requests end."""


@dataclass(frozen=True)
class NamedTrace:
    """A trace, and the class that the user names for it."""

    trace: Trace
    name: str | None = None


def split_name(path: str | Path) -> tuple[str | None, str | Path]:
    """`CLASS=PATH` apart; the path of a file that is there stays whole."""
    name, equals, rest = str(path).partition("=")
    if not equals or not name or not rest or "/" in name or Path(path).exists():
        return None, path
    return name, rest


def joined_parts(traces: Sequence[NamedTrace]) -> list[NamedTrace]:
    """The traces, with those that are parts of one joined, in the order of their first files.

    Traces that the user gives one name are parts where they do not overlap in time, but for a little (`SEAM`). Others
    are where they are of one format, and each begins soon after the one before has ended, by no more than the longer of
    the two lasts: all of them together, or those whose names differ by numbers only.
    """
    groups: list[list[NamedTrace]] = []
    for name in dict.fromkeys(each.name for each in traces if each.name is not None):
        own = [each for each in traces if each.name == name]
        groups += [own] if _one_clock(own) and _apart(own) else []
    unnamed = [each for each in traces if each.name is None]
    families: dict[str, list[NamedTrace]] = {}
    for each in unnamed:
        families.setdefault(re.sub(r"\d+", "#", stem_of(each.trace.source)), []).append(each)
    for candidates in [unnamed] if _follow(unnamed) else families.values():
        groups += [candidates] if _follow(candidates) else []
    joined: dict[int, NamedTrace] = {}
    for group in groups:
        if len(group) > 1:
            joined |= dict.fromkeys(map(id, group), _joined(group))
    found = [joined.get(id(each), each) for each in traces]
    return _apart_noted(list({id(each): each for each in found}.values()))


def _apart_noted(traces: Sequence[NamedTrace]) -> list[NamedTrace]:
    """The traces, with a word on those without a name that do not overlap in time, but play as if they did."""
    loose = sorted((each for each in traces if each.name is None and each.trace.absolute), key=lambda n: n.trace.start)
    apart = [pair for pair in pairwise(loose) if _gap(pair[0].trace, pair[1].trace) > 0]
    if not apart:
        return list(traces)
    sources = list(dict.fromkeys(each.trace.source for pair in apart for each in pair))
    note = (
        f"{_some(sources)} do not overlap in time, and are taken as services at one time; "
        "if they are one service, give them the same name, CLASS=FILE"
    )
    first = apart[0][0]
    noted = replace(first, trace=replace(first.trace, notes=(*first.trace.notes, note)))
    return [noted if each is first else each for each in traces]


def _some(sources: Sequence[str]) -> str:
    return f"{', '.join(sources[:3])}{', ...' if len(sources) > 3 else ''}"


def _follow(traces: Sequence[NamedTrace]) -> bool:
    """Whether each begins soon after the one before has ended."""
    if len(traces) < 2 or not _one_clock(traces) or not _apart(traces):
        return False
    ordered = _in_order(traces)
    return all(_gap(one, two) <= max(one.span, two.span) for one, two in pairwise(ordered))


def _one_clock(traces: Sequence[NamedTrace]) -> bool:
    """Whether the traces are of one format and have the same columns."""
    kinds = {(t.form, t.absolute, t.labels is None, t.clock) for t in (each.trace for each in traces)}
    return len(kinds) == 1 and not any(each.trace.by_answers for each in traces)


def _apart(traces: Sequence[NamedTrace]) -> bool:
    return all(
        one.start < two.start and _gap(one, two) >= -SEAM * min(one.span, two.span)
        for one, two in pairwise(_in_order(traces))
    )


def _in_order(traces: Sequence[NamedTrace]) -> list[Trace]:
    return sorted((each.trace for each in traces), key=lambda trace: trace.start)


def _gap(one: Trace, two: Trace) -> float:
    return two.start - (one.start + one.span)


def _joined(group: Sequence[NamedTrace]) -> NamedTrace:
    """One trace; a pause between its parts that is longer than both is left out, but for a mean gap."""
    parts = _in_order(group)
    begins, left_out = [0.0], 0
    for one, two in pairwise(parts):
        gap = _gap(one, two)
        if gap > max(one.span, two.span):
            gap, left_out = one.span / max(1, len(one) - 1), left_out + 1
        begins.append(begins[-1] + one.span + gap)
    sources = tuple(part.source for part in parts)
    named = f"'{group[0].name}'" if group[0].name is not None else f"'{shared_name(sources)}'"
    note = f"{_some(sources)}: parts of {named}, read one after the other"
    if left_out:
        note += f", without {left_out} pauses between them"
    elif group[0].name is None:
        note += "; to keep them apart, give each a name, CLASS=FILE"

    arrival = np.concatenate([part.arrival_time + begin for part, begin in zip(parts, begins, strict=True)])
    order = np.argsort(arrival, kind="stable")

    def moved(columns: Sequence[Array | None]) -> Array | None:
        present = [column + begin for column, begin in zip(columns, begins, strict=True) if column is not None]
        return np.concatenate(present)[order] if len(present) == len(parts) else None

    blocks = [part.blocks for part in parts if part.blocks is not None]
    sessions = [part.sessions for part in parts if part.sessions is not None]
    labels = [part.labels for part in parts if part.labels is not None]
    made = replace(
        parts[0],
        arrival_time=arrival[order],
        prompt_tokens=np.concatenate([part.prompt_tokens for part in parts])[order],
        output_tokens=np.concatenate([part.output_tokens for part in parts])[order],
        labels=np.concatenate(labels)[order] if labels else None,
        source=shared_name(sources),
        empty=sum(part.empty for part in parts),
        failed=sum(part.failed for part in parts),
        first_token=moved([part.first_token for part in parts]),
        last_token=moved([part.last_token for part in parts]),
        scheduled=moved([part.scheduled for part in parts]),
        sent=moved([part.sent for part in parts]),
        parts=tuple(file for part in parts for file in part.files),
        blocks=Blocks.of_parts(blocks).select(order) if len(blocks) == len(parts) else None,
        sessions=Sessions.joined(sessions).select(order) if len(sessions) == len(parts) else None,
        notes=(note, *(word for part in parts for word in part.notes)),
    )
    return NamedTrace(made, group[0].name)
