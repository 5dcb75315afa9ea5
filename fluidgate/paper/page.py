"""One page that gathers the items: Markdown beside the pictures, and HTML that stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluidgate.toml_file import write_whole

INTRODUCTION = (
    "Each figure and table of Lin, Ding, Han, Zhang, *Large-Scale LLM Inference with Heterogeneous Workloads: "
    "Prefill-Decode Contention and Asymptotically Optimal Control* (arXiv:2602.02987), run again with fluidgate, and "
    "whether its claims hold."
)
HOW = (
    "`fluidgate paper all` makes this page: about 10 minutes on two cores, one with `--quick`. "
    "`fluidgate paper figure-7` runs one item. Each writes its picture (SVG and PNG), its data (CSV), its verdicts and "
    "its run time (JSON) into `out/paper`. `--data DIR` names a folder with files that can't be shipped: "
    "`databricks-dolly-15k.jsonl`, the two Azure traces, `aiconfigurator_tau.csv`. How many claims hold:"
)
ANSWER = {True: "holds", False: "does not hold", None: "not judged"}


def markdown(records: list[dict[str, Any]], folder: Path, *, pictures: str = "", kind: str = "svg") -> str:
    """The page as Markdown; `pictures` is put before the file names of the pictures, `kind` is their suffix."""
    parts = ["# The published evaluation, reproduced", INTRODUCTION, HOW, overview(records)]
    for record in records:
        parts.append(f"## {record['item']}: {record['title']}")
        if record["figure"]:
            parts.append(f"![{record['item']}]({pictures}{record['item']}.{kind})")
        elif record["item"].startswith("table"):
            parts.append(data_table(folder / f"{record['item']}.csv"))
        parts.append(verdict_table(record))
        parts += record["notes"]
    if any(record["quick"] for record in records):
        parts.insert(3, "**A quick run: small experiments that show the shape only.**")
    return "\n\n".join(parts) + "\n"


def overview(records: list[dict[str, Any]]) -> str:
    """How many claims of each item hold."""
    lines = ["| item | " + " | ".join(ANSWER.values()) + " |", "|---" * (1 + len(ANSWER)) + "|"]
    for record in records:
        answers = [verdict["holds"] for verdict in record["verdicts"]]
        lines.append(f"| {record['item']} | " + " | ".join(str(answers.count(answer)) for answer in ANSWER) + " |")
    return "\n".join(lines)


def verdict_table(record: dict[str, Any]) -> str:
    lines = ["| the paper's claim | measured | |", "|---|---|---|"]
    lines += [f"| {v['claim']} | {v['measured']} | **{ANSWER[v['holds']]}** |" for v in record["verdicts"]]
    return "\n".join(lines)


def data_table(path: Path) -> str:
    import pandas as pd

    frame = pd.read_csv(path).drop(columns="schema").dropna(axis="columns", how="all")
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def write_page(records: list[dict[str, Any]], folder: Path) -> None:
    """Write `index.md` and `index.html`; the second holds its pictures within itself."""
    text = markdown(records, folder)
    write_whole(folder / "index.md", text)
    write_whole(folder / "index.html", html(text, folder))


def html(text: str, folder: Path) -> str:
    import re

    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(text)

    def embedded(match: re.Match[str]) -> str:
        picture = (folder / match[1]).read_text(encoding="utf-8")
        return picture[picture.index("<svg") :]

    body = re.sub(r'<img src="([^"]+\.svg)"[^>]*>', embedded, body)
    return f"{HEAD}{body}</body></html>\n"


HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The published evaluation, reproduced</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
svg { max-width: 100%; height: auto; } table { border-collapse: collapse; font-size: 0.9rem; }
td, th { border-bottom: 1px solid #ccc; padding: 0.3rem 0.7rem; text-align: left; vertical-align: top; }
</style></head><body>
"""
