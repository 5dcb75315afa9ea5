"""Which rows of a file are requests of its trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fluidgate.toml_file import fail
from fluidgate.workloads.cells import Cells
from fluidgate.workloads.formats import Format

LONGEST = 2**31 - 1
LEAVE_OUT = "leave such requests out with --skip-empty"

FINE = ("", "false", "0", "ok", "none", "null", "200")
"""What a column of failures says of a request that did not fail."""


def one_run(cells: Cells, form: Format, benchmark: int | None) -> Cells:
    """The requests of one benchmark; of all of them, where each is a class of its own."""
    if form.runs is None:
        if benchmark is not None:
            fail(cells.source, ["its kind of file holds one run; leave --benchmark out"])
        return cells
    texts = cells.texts(form.runs)
    numbers = list(dict.fromkeys(texts))
    if benchmark is None and (len(numbers) == 1 or form.label == form.runs):
        return cells
    if benchmark is not None and str(benchmark) in numbers:
        return cells.select((texts == str(benchmark)).to_numpy(bool))
    settings = cells.texts(form.setting or form.runs).groupby(texts).first()
    each = ", ".join(f"{number} ({settings[number]})" for number in numbers[:10])
    choice = f"{each}{', ...' if len(numbers) > 10 else ''}"
    if benchmark is not None:
        fail(cells.source, [f"no benchmark {benchmark} in it; give --benchmark one of {choice}"])
    fail(cells.source, [f"{len(numbers)} benchmarks in it; choose one with --benchmark K: {choice}"])


def refuse_absent(cells: Cells, form: Format, names: list[str]) -> None:
    """Refuse a key that no request has, where requests need not have the same keys."""
    for standard, column in form.columns.items():
        if column and cells.blank(column).all():
            mend = f"--map {standard}=KEY says which one it is"
            fail(cells.source, [f"{column}: missing in every request; {mend} (the keys are {', '.join(names[:20])})"])


def ended(cells: Cells, form: Format) -> tuple[Cells, int, list[str]]:
    """Those requests that did not fail and are not of the warm-up; how many failed, and a note on the others."""
    warm = np.zeros(len(cells), bool)
    if form.warm_up is not None:
        warm = (cells.texts(form.warm_up) == "warmup").to_numpy(bool)
    wrong = np.zeros(len(cells), bool)
    for column in form.failed:
        wrong |= ~cells.texts(column).str.lower().isin(FINE).to_numpy(bool)
    kept = ~(warm | wrong)
    if not kept.any():
        fail(cells.source, ["every request failed, or is of the warm-up; give a trace with requests that ended"])
    notes = [f"the tool's own warm-up, {int(warm.sum())} requests, is left out"] if warm.any() else []
    return cells.select(kept), int((wrong & ~warm).sum()), notes


def without_blanks(form: Format, cells: Cells) -> Format:
    """The format without times of tokens, where no request of this file has them."""
    return replace(form, measured=None) if any(cells.blank(column).all() for column in form.tokens) else form


def kept_rows(cells: Cells, form: Format, skip_empty: bool) -> NDArray[np.bool_]:
    """Which requests have tokens and, where that is measured, ended; all of them, unless the others are skipped."""
    absent = np.zeros(len(cells), bool)
    for column in (form.prompt, form.output, *form.tokens):
        blank = cells.blank(column)
        if not skip_empty:
            cells.refuse_any(blank, column, "a finite number", f", or {LEAVE_OUT}")
        absent |= blank
    empty = absent.copy()
    present = cells.select(~absent)
    for column in (form.prompt, form.output):
        tokens = present.numbers(column)
        wrong = (tokens < 0) | (tokens != np.floor(tokens)) | (tokens > LONGEST)
        present.refuse_any(wrong, column, f"a whole number from 1 to {LONGEST}")
        if not skip_empty and (tokens == 0).any():
            present.fail(tokens == 0, column, f"no tokens; correct it, or {LEAVE_OUT}")
        empty[~absent] |= tokens == 0
    if empty.all():
        fail(cells.source, ["every request is empty; give a trace with prompt and output tokens"])
    return ~empty
