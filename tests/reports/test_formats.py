"""Tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io

import pytest
from rich.table import Table

from fluidgate.reports.figures import Figure, Named, Several, Shown, figure_of
from fluidgate.reports.formats import as_csv, as_latex, as_markdown, column_name
from fluidgate.reports.tables import number, percent, table, with_interval
from fluidgate.simulation import Statistic


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def measured(mean: float | None, ci95: tuple[float, float] | None = None) -> Shown:
    return with_interval(Statistic(mean=mean, std=None, ci95=ci95, values=()))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("TTFT, s", "ttft_s"),
        ("revenue /s", "revenue_per_s"),
        ("share of R*", "share_of_r_star"),
        ("price of 1 % more", "price_of_1_percent_more"),
        ("", "note"),
    ],
)
def test_columns_are_named_by_their_heads(head: str, name: str) -> None:
    assert column_name(head) == name


@pytest.mark.parametrize(
    ("cell", "figure"),
    [
        ("1,234", Figure(1234.0)),
        ("12.5 ms", Figure(12.5, unit="ms")),
        ("4 ±0.5", Figure(4.0, 3.5, 4.5, interval=True)),
        ("1e-05 /s", Figure(1e-5, unit="/s")),
        ("1 mixed + 3 solo", None),
        ("h100", None),
        ("-", None),
    ],
)
def test_figures_are_known_by_their_texts(cell: str, figure: Figure | None) -> None:
    assert figure_of(cell) == figure


def test_csv_has_all_digits_intervals_and_units_in_names() -> None:
    made = table("T", "policy", "revenue /s", "served", "note", text=1)
    made.add_row(Named("a", ["b"]), measured(1 / 3, (0.25, 0.75)), percent(0.5), "-")
    made.add_row("c", measured(None), percent(None), "12 GPUs")
    first, second = read(as_csv([made]))
    assert first == {
        "policy": "a",
        "revenue_per_s": repr(1 / 3),
        "revenue_per_s_low": "0.25",
        "revenue_per_s_high": "0.75",
        "served_percent": "50",
        "note_gpus": "",
    }
    assert set(second.values()) == {"c", "", "12"}


def test_columns_stay_when_there_are_no_intervals() -> None:
    def heads(*values: Shown) -> str:
        made = table("T", "policy", "revenue /s")
        for value in values:
            made.add_row("a", value)
        return as_csv([made]).splitlines()[0]

    assert heads(measured(1.0)) == heads(measured(None)) == heads(measured(1.0, (0.0, 2.0)))


def test_classes_have_columns_of_their_own() -> None:
    made = table("T", "policy", "TTFT, s")
    made.add_row("a", Several({"chat": number(0.123456), "code x": number(None)}))
    assert str(next(made.columns[1].cells)) == "0.1235 / -"
    assert read(as_csv([made])) == [{"policy": "a", "ttft_s_chat": "0.123456", "ttft_s_code_x": ""}]


def test_a_table_without_heads_has_quantities_values_and_units() -> None:
    made = table("T", "", "")
    made.add_row("revenue", "297.7 /s")
    made.add_row("split", "1 mixed + 3 solo")
    assert read(as_csv([made])) == [
        {"quantity": "revenue", "value": "297.7", "unit": "/s"},
        {"quantity": "split", "value": "1 mixed + 3 solo", "unit": ""},
    ]


def test_several_tables_of_csv_are_told_apart() -> None:
    def small(title: str) -> Table:
        made = table(title, "class", "n")
        made.add_row("chat", "1")
        return made

    assert as_csv([small("One")]) == "class,n\nchat,1\n"
    assert as_csv([small("One"), small("Two")]) == "# One\nclass,n\nchat,1\n\n# Two\nclass,n\nchat,1\n"


def test_markdown_and_latex_write_out_what_is_theirs() -> None:
    made = table("T_1", "policy", "share, %")
    made.add_row("a|b_c", "4 ±0.5")
    made.caption = "by class"
    assert as_markdown([made]) == "**T_1**\n\n| policy | share, % |\n|---|---:|\n| a\\|b_c | 4 ±0.5 |\n\nby class\n"
    assert as_latex([made]).splitlines() == [
        "% T_1",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"policy & share, \% \\",
        r"\midrule",
        r"a|b\_c & 4 $\pm$0.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% by class",
    ]
