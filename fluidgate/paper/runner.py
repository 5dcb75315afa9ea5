"""Run items and keep what they leave behind: picture, data, verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluidgate import __version__
from fluidgate.errors import FluidgateError
from fluidgate.execution import Kept
from fluidgate.execution.kept import keys
from fluidgate.execution.local import ThisMachine
from fluidgate.paper.catalogue import find_item
from fluidgate.paper.item import Outcome, Setting
from fluidgate.toml_file import write_whole

SCHEMA = 1


def run_item(name: str, setting: Setting, folder: Path) -> dict[str, Any]:
    """Run an item and write `NAME.svg`, `NAME.png`, `NAME.csv` and, last, `NAME.json`; returns what the last holds."""
    item = find_item(name)
    began = time.perf_counter()
    outcome = item.run(setting)
    record = {
        "schema": SCHEMA,
        "item": name,
        "title": item.TITLE,
        "quick": setting.quick,
        "version": __version__,
        "content": content(name, setting),
        "seconds": round(time.perf_counter() - began, 1),
        "figure": outcome.figure is not None,
        "verdicts": [verdict.to_dict() for verdict in outcome.verdicts],
        "notes": list(outcome.notes),
    }
    keep(name, outcome, record, folder)
    return record


def keep(name: str, outcome: Outcome, record: dict[str, Any], folder: Path) -> None:
    """Write an outcome; the record comes last, so that it stands for a whole item."""
    from fluidgate.reports.plots import save

    if outcome.figure is not None:
        save(outcome.figure, folder / f"{name}.svg")
        save(outcome.figure, folder / f"{name}.png")
    write_whole(folder / f"{name}.csv", outcome.data.assign(schema=SCHEMA).to_csv(index=False))
    write_whole(folder / f"{name}.json", json.dumps(record, indent=2) + "\n")


def finished(name: str, setting: Setting, folder: Path) -> dict[str, Any] | None:
    """The record of an item that an earlier run of the same kind, code and data has finished, or None."""
    try:
        record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("content") == content(name, setting) else None


def content(name: str, setting: Setting) -> str:
    """What names the outcome of an item, as results are kept: the code, how it is run, and the files that it finds."""
    folder = None if setting.data is None else Path(setting.data)
    files = sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    (key,) = keys(find_item(name).run, [(SCHEMA, setting.quick, states)])
    return key


def run_items(
    names: list[str],
    setting: Setting,
    folder: Path,
    *,
    again: bool = False,
    announce: Callable[[str, bool], Callable[[int, int], None] | None] = lambda name, known: None,
) -> list[dict[str, Any]]:
    """Run items one after the other; those finished before are read, not run, unless `again`.

    The simulations of an item are kept in `folder/kept`, unless the setting keeps them elsewhere or it is run `again`.

    Args:
        announce: called with each item's name and whether it is known already; returns its progress callback.
    """
    for name in names:
        find_item(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FluidgateError(f"--out: '{folder}' can't be made ({error.strerror}); name another folder") from error
    if not again and not isinstance(setting.executor, Kept):
        kept = Kept(folder / "kept", setting.executor or ThisMachine(setting.workers))
        setting = replace(setting, executor=kept)
    records = []
    for name in names:
        known = None if again else finished(name, setting, folder)
        progress = announce(name, known is not None)
        records.append(known or run_item(name, replace(setting, progress=progress), folder))
    return records
