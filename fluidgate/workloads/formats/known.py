"""The formats that traces may have, for a list."""

from __future__ import annotations

from dataclasses import dataclass

from fluidgate.workloads.formats.agent_sessions import NAME
from fluidgate.workloads.formats.brought import brought_formats, brought_readers
from fluidgate.workloads.formats.catalogue import FORMATS
from fluidgate.workloads.formats.format import Format

HERE = "fluidgate"


@dataclass(frozen=True)
class KnownFormat:
    """What files of a format are known by.

    Attributes:
        known_by: columns or keys; those of time, prompt and output first.
        times: the unit, `date` for ISO 8601; empty where nothing tells.
        origin: the package that reads them.
    """

    name: str
    known_by: str
    times: str
    origin: str


def known_formats() -> list[KnownFormat]:
    """Those read here, in the order in which they are tried, then those of other installed packages."""
    own = [_of(form, HERE) for form in FORMATS]
    sessions = KnownFormat(NAME, "an object a session, with its requests", "s", HERE)
    brought = [_of(form, package) for form, package in brought_formats().values()]
    read = [KnownFormat(name, "a function of that package", "", package) for name, package in brought_readers().items()]
    return [*own, sessions, *brought, *read]


def _of(form: Format, origin: str) -> KnownFormat:
    columns = dict.fromkeys((*form.columns.values(), *form.marks))
    return KnownFormat(form.name, ", ".join(columns), form.unit or "", origin)
