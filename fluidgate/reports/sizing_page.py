"""How many GPUs, as one page of HTML that opens anywhere: it asks for nothing and runs nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.table import Table

from fluidgate import __version__
from fluidgate.reports.sizing import engines_of, held, one_less, peak, sizing_figure, sizing_tables
from fluidgate.reports.tables import number
from fluidgate.sizing import Answer, Sizing
from fluidgate.toml_file import write_whole

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #59636e; --line: #d5dae0; --back: #ffffff; --card: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ed; --soft: #9aa5b1; --line: #363d46; --back: #14171b; --card: #1e2329; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2.5rem auto; padding: 0 1.25rem;
  color: var(--text); background: var(--back); }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 0.25rem; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 0.5rem; }
p { margin: 0.25rem 0; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: 0.75rem; margin: 1.5rem 0; }
dl div { background: var(--card); border-radius: 0.5rem; padding: 0.75rem 1rem; }
dt { color: var(--soft); font-size: 0.85rem; }
dd { margin: 0; font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere; }
dd small { display: block; font-size: 0.85rem; font-weight: 400; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); }
th, td { padding: 0.35rem 0.8rem 0.35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th.number, td.number { text-align: right; }
td.number, td:first-child { white-space: nowrap; }
svg { fill: currentColor; }
code { font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere; }
li { margin: 0.25rem 0; }
@media print { body { margin: 0; max-width: none; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for the page: its own style, and nothing from anywhere."""


def write_sizing_page(found: Sizing, path: str | Path, *, command: str | None = None) -> None:
    """Write the page; `command` is the line that made the answers.

    Raises:
        FluidgateError: the file cannot be written.
    """
    write_whole(path, sizing_page(found, command=command))


def sizing_page(found: Sizing, *, command: str | None = None) -> str:
    """The answer in short, costs against each target as pictures, the tables of the command, and how it was made."""
    body = "\n".join((*_head(found), *_pictures(found), *map(_table, sizing_tables(found)), *_made(found, command)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f"<title>{escape(_title(found))}</title><style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _title(found: Sizing) -> str:
    if found.best is None:
        return f"Nothing keeps the targets of '{found.scenario}'"
    gpus = "1 GPU keeps" if found.best.gpus == 1 else f"{found.best.gpus} GPUs keep"
    return f"{gpus} the targets of '{found.scenario}'"


def _head(found: Sizing) -> Iterator[str]:
    yield f"<h1>{escape(_title(found))}</h1>"
    best = found.best
    if best is None:
        yield "<p>None of the choices does, by any number of engines that may be had.</p>"
        return
    yield f"<p>{escape(best.choice.name)}</p>"
    yield "<dl>"
    for name, value, more in _cards(found, best):
        small = f"<small>{escape(more)}</small>" if more else ""
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{small}</dd></div>"
    yield "</dl>"


def _cards(found: Sizing, best: Answer) -> Iterator[tuple[str, str, str]]:
    """What to know first: a name, its value, and what goes with it."""
    engines = engines_of(best.engines or 0)
    spare = f", {best.spare} of them spare" if best.spare else ""
    yield "GPUs", str(best.gpus), engines + spare
    bill, priced = best.bill, best.choice.priced
    if bill is not None and priced:
        yield "Cost", f"{found.currency} {number(bill.per_hour)} an hour", ""
        if bill.per_million is not None:
            yield "A million tokens", f"{found.currency} {number(bill.per_million)}", "prompts and answers alike"
    if best.binding is not None:
        yield "Binds", best.binding.target.name, held(best.binding).removeprefix(best.binding.target.name).strip()
    if best.peak is not None:
        when, what = peak(best.peak).split(": ", 1)
        yield "The peak that binds", when, what
    if best.one_less is not None:
        yield "One engine less breaks", one_less(best), f"with {best.one_less.engines}"


def _pictures(found: Sizing) -> Iterator[str]:
    if not any(each.trials for each in found.answers):
        return
    yield "<h2>Cost against each target</h2>"
    yield "<p>Each number of engines that was simulated, with 95 % confidence; the dashed line is the target.</p>"
    yield f'<div class="wide">{_picture(found)}</div>'


def _picture(found: Sizing) -> str:
    """As SVG within the page, in the page's colour."""
    from fluidgate.reports.plots import style

    text = io.StringIO()
    with style():
        figure = sizing_figure(found)
        figure.savefig(text, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace("#000000", "currentColor")


def _table(made: Table) -> str:
    """A table of the terminal."""
    numbers = [column.justify == "right" for column in made.columns]
    parts = [f"<h2>{escape(str(made.title or ''))}</h2>", '<div class="wide"><table>']
    if made.show_header:
        parts.append(_row("th", [str(column.header) for column in made.columns], numbers))
    rows = zip(*(list(column.cells) for column in made.columns), strict=True)
    parts += [_row("td", list(map(str, row)), numbers) for row in rows]
    return "".join((*parts, "</table></div>"))


def _row(tag: str, texts: list[str], numbers: list[bool]) -> str:
    kinds = [' class="number"' if right else "" for right in numbers]
    cells = (f"<{tag}{kind}>{escape(text)}</{tag}>" for text, kind in zip(texts, kinds, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def _made(found: Sizing, command: str | None) -> Iterator[str]:
    if found.warnings:
        yield "<h2>What to know</h2>"
        yield f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in found.warnings)}</ul>"
    yield "<h2>How this was made</h2>"
    if command is not None:
        yield f"<p><code>{escape(command)}</code></p>"
    yield (
        f"<p>fluidgate {escape(__version__)}, seed {found.seed}, {found.wall_seconds:.1f} s. The program in token "
        "rates says how few engines there can be, simulation by iterations how few there must be.</p>"
    )
