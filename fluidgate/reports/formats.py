"""Tables as CSV, Markdown and LaTeX.

CSV is for programs: a column has a name that does not change with what is in it, numbers stand with all their digits,
units in the names of columns or in a column of their own, and ends of 95 % confidence intervals in columns `_low` and
`_high`. Markdown and LaTeX show what a terminal shows.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.table import Table

from fluidgate.reports.figures import Figure, Several, figure_of

NOTHING = ("", "-")
"""Cells without a value."""

WORDS = (("R*", "r_star"), ("%", " percent "), ("/", " per "))
"""What stands in the names of columns for signs."""


def as_csv(tables: Iterable[Table]) -> str:
    """CSV; several tables stand below each other, each under a comment with its title, with empty lines between."""
    several = list(tables)
    parts = [_csv(made) for made in several]
    if len(parts) == 1:
        return parts[0]
    return "\n".join(f"# {title_of(made)}\n{part}" for made, part in zip(several, parts, strict=True))


def as_markdown(tables: Iterable[Table]) -> str:
    """Tables of GitHub's Markdown, each under its title in bold."""
    return "\n".join(map(_markdown, tables))


def as_latex(tables: Iterable[Table]) -> str:
    r"""LaTeX's `tabular`, with the rules of the package booktabs; titles are captions in comments."""
    return "\n".join(map(_latex, tables))


def title_of(made: Table) -> str:
    return str(made.title or "")


def heads_of(made: Table) -> list[str]:
    """The heads of a table's columns; those of a table without heads are quantity and value."""
    heads = [str(column.header) for column in made.columns]
    if any(heads):
        return heads
    return ["quantity", "value"][: len(heads)]


def rows_of(made: Table) -> list[tuple[object, ...]]:
    return list(zip(*(list(column.cells) for column in made.columns), strict=True))


def column_name(head: str) -> str:
    """`TTFT, s` as `ttft_s`, `revenue /s` as `revenue_per_s`."""
    for sign, word in WORDS:
        head = head.replace(sign, word)
    return re.sub(r"[^a-z0-9]+", "_", head.lower()).strip("_") or "note"


def records_of(made: Table) -> tuple[list[str], list[list[object]]]:
    """Names of columns, and rows of numbers and texts; None where there is no value."""
    rows = rows_of(made)
    names: list[str] = []
    columns: list[list[object]] = []
    for k, (head, column) in enumerate(zip(heads_of(made), made.columns, strict=True)):
        cells = [row[k] for row in rows]
        for name, values in _columns(column_name(head), cells, words=column.justify != "right"):
            names.append(name)
            columns.append(values)
    return names, [[values[k] for values in columns] for k in range(len(rows))]


def _columns(name: str, cells: Sequence[object], *, words: bool) -> Iterator[tuple[str, list[object]]]:
    """A column of a table as columns of CSV: its numbers, their intervals and units; or its words."""
    several = next((cell for cell in cells if isinstance(cell, Several)), None)
    if several is not None:
        for part in several.parts:
            figures = [cell.parts.get(part) if isinstance(cell, Several) else None for cell in cells]
            yield from _numbers(f"{name}_{column_name(part)}", figures, [None] * len(cells))
        return
    figures = [figure_of(cell) for cell in cells]
    texts = [None if figure or str(cell) in NOTHING else str(cell) for figure, cell in zip(figures, cells, strict=True)]
    if words or (any(texts) and name != "value"):
        yield name, [None if str(cell) in NOTHING else _one_line(getattr(cell, "name", cell)) for cell in cells]
    else:
        yield from _numbers(name, figures, texts)


def _numbers(
    name: str, figures: Sequence[Figure | None], texts: Sequence[str | None]
) -> Iterator[tuple[str, list[object]]]:
    """
    Args:
        texts: what stands where there is no figure.
    """
    known = [figure for figure in figures if figure is not None]
    units = {figure.unit for figure in known if figure.value is not None or figure.unit}
    if len(units) == 1 and name != "value":
        unit = column_name(units.pop()) if any(units) else ""
        name = name if name.endswith(unit) else f"{name}_{unit}"
    yield name, [figure.value if figure else text for figure, text in zip(figures, texts, strict=True)]
    if any(figure.interval for figure in known):
        yield f"{name}_low", [figure.low if figure else None for figure in figures]
        yield f"{name}_high", [figure.high if figure else None for figure in figures]
    if any(units):
        yield "unit" if name == "value" else f"{name}_unit", [figure.unit if figure else None for figure in figures]


def _csv(made: Table) -> str:
    names, rows = records_of(made)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if value is None else _text(value) for value in row] for row in rows])
    return out.getvalue()


def _text(value: object) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value)


def _markdown(made: Table) -> str:
    def row(cells: Iterable[object]) -> str:
        return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |"

    rules = ["---:" if column.justify == "right" else "---" for column in made.columns]
    lines = [f"**{title_of(made)}**", "", row(heads_of(made)), f"|{'|'.join(rules)}|", *map(row, rows_of(made))]
    if made.caption:
        lines += ["", str(made.caption)]
    return "\n".join(lines) + "\n"


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def tex(text: object) -> str:
    """A text with what LaTeX would take for its own written out."""
    return "".join(TEX.get(sign, sign) for sign in _one_line(text))


def _latex(made: Table) -> str:
    def row(cells: Iterable[object]) -> str:
        return " & ".join(map(tex, cells)) + r" \\"

    columns = "".join("r" if column.justify == "right" else "l" for column in made.columns)
    lines = [
        f"% {_one_line(title_of(made))}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        row(heads_of(made)),
        r"\midrule",
        *map(row, rows_of(made)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if made.caption:
        lines.append(f"% {_one_line(made.caption)}")
    return "\n".join(lines) + "\n"


def _one_line(cell: object) -> str:
    return " ".join(str(cell).split())


WRITERS: dict[str, Callable[[Iterable[Table]], str]] = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}
