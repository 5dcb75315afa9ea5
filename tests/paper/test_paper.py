"""The published evaluation in a quick run: files, records, verdicts and the page; and what the verdicts are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fluidgate import FluidgateError, plan
from fluidgate.paper.catalogue import ITEMS, find_item
from fluidgate.paper.figure_7 import POLICIES, claims, wins
from fluidgate.paper.figure_8 import price_steps
from fluidgate.paper.instances import random_instance, two_class
from fluidgate.paper.item import Setting
from fluidgate.paper.lengths import CATEGORIES, DOLLY
from fluidgate.paper.page import write_page
from fluidgate.paper.runner import finished, run_items
from fluidgate.paper.scale import rate
from fluidgate.planning import frontier

QUICK = Setting(quick=True)
TABLES = {"table-1", "table-2", "table-3"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    folder = tmp_path_factory.mktemp("paper")
    records = run_items(list(ITEMS), QUICK, folder)
    write_page(records, folder)
    return folder, {record["item"]: record for record in records}


def frame(folder: Path, item: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{item}.csv")


@pytest.mark.parametrize("item", ITEMS)
def test_each_item_leaves_picture_data_and_verdict(run: tuple[Path, dict[str, dict]], item: str) -> None:
    folder, records = run
    record = records[item]
    assert json.loads((folder / f"{item}.json").read_text()) == record
    assert record["verdicts"]
    assert all(v["claim"] and v["measured"] and v["holds"] in (True, False, None) for v in record["verdicts"])
    data = frame(folder, item)
    assert len(data) > 0
    assert set(data["schema"]) == {1}
    assert record["figure"] == (item not in TABLES)
    if record["figure"]:
        assert "<svg" in (folder / f"{item}.svg").read_text()
        assert (folder / f"{item}.png").stat().st_size > 5_000


def test_the_page_gathers_all_and_the_html_stands_alone(run: tuple[Path, dict[str, dict]]) -> None:
    folder, records = run
    text, page = (folder / "index.md").read_text(), (folder / "index.html").read_text()
    for item, record in records.items():
        assert f"## {item}: {record['title']}" in text
        assert record["verdicts"][0]["claim"].split("<")[0].split(">")[0] in page
    assert page.count("<svg") == len(ITEMS) - len(TABLES)
    assert "<img" not in page
    assert "A quick run" in page
    summary = text.partition("\n## ")[0]
    counts = re.findall(r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \|$", summary, re.MULTILINE)
    assert {item: sum(map(int, rest)) for item, *rest in counts} == {
        item: len(record["verdicts"]) for item, record in records.items()
    }
    assert "| nan |" not in text


def test_revenue_of_figure_4_is_below_the_optimum(run: tuple[Path, dict[str, dict]]) -> None:
    data = frame(run[0], "figure-4")
    revenue = data[data["quantity"] == "revenue_rate"]
    assert set(revenue["plan"].round(3)) == {297.703}
    assert (revenue["mean"] < revenue["plan"]).all()
    assert (revenue["mean"] > 0.85 * revenue["plan"]).all()


@pytest.mark.parametrize("item", ["figure-5", "figure-6"])
def test_occupancies_are_near_the_plan(run: tuple[Path, dict[str, dict]], item: str) -> None:
    data = frame(run[0], item)
    largest = data[data["gpus"] == data["gpus"].max()]
    assert set(largest["quantity"]) == {"prefill", "mixed_decode", "solo_decode"}
    assert (abs(largest["mean"] - largest["plan"]) < 0.1 * 16).all()


def test_figure_7_has_every_policy_on_every_instance(run: tuple[Path, dict[str, dict]]) -> None:
    data = frame(run[0], "figure-7")
    assert set(data["policy"]) == set(POLICIES)
    assert (data.groupby("instance").size() == len(POLICIES)).all()
    assert data["ratio"].between(0.2, 1.02).all()


def test_scale_shrinks_the_gap(run: tuple[Path, dict[str, dict]]) -> None:
    data = frame(run[0], "scale")
    gaps = data[data["policy"] == "gate-and-route"].sort_values("gpus")["gap"].to_numpy()
    assert gaps[-1] < gaps[0]
    assert np.all(gaps > 0)


def test_prices_of_figure_8_are_slopes(run: tuple[Path, dict[str, dict]]) -> None:
    assert run[1]["figure-8"]["verdicts"][-1]["holds"] is True
    assert run[1]["figure-8"]["verdicts"][0]["holds"] is True


@pytest.mark.parametrize("item", ["figure-9", "figure-10"])
def test_claims_on_hardware_and_prices(run: tuple[Path, dict[str, dict]], item: str) -> None:
    assert run[1][item]["verdicts"][-1]["holds"] is True


def test_finished_items_are_not_run_again(tmp_path: Path) -> None:
    first = run_items(["table-3", "figure-10"], QUICK, tmp_path)
    stamp = (tmp_path / "figure-10.json").stat().st_mtime_ns
    (tmp_path / "table-3.json").unlink()
    seen: list[tuple[str, bool]] = []
    again = run_items(
        ["table-3", "figure-10"], QUICK, tmp_path, announce=lambda name, known: seen.append((name, known))
    )
    assert seen == [("table-3", False), ("figure-10", True)]
    assert (tmp_path / "figure-10.json").stat().st_mtime_ns == stamp
    assert again[1] == first[1]
    run_items(["figure-10"], QUICK, tmp_path, again=True)
    assert (tmp_path / "figure-10.json").stat().st_mtime_ns > stamp


def test_an_item_that_was_interrupted_finds_its_simulations(tmp_path: Path) -> None:
    class Counting:
        jobs = 0

        def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
            self.jobs += len(jobs)
            return map(function, jobs)

    counting = Counting()
    setting = Setting(quick=True, executor=counting)
    (first,) = run_items(["figure-2"], setting, tmp_path)
    assert counting.jobs == 4
    (tmp_path / "figure-2.json").unlink()
    (again,) = run_items(["figure-2"], setting, tmp_path)
    assert counting.jobs == 4
    assert again["verdicts"] == first["verdicts"]
    run_items(["figure-2"], setting, tmp_path, again=True)
    assert counting.jobs == 8


def test_other_code_or_data_make_an_item_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    setting = Setting(quick=True, data=str(data))
    run_items(["table-3"], setting, tmp_path)
    assert finished("table-3", setting, tmp_path) is not None
    (data / "more.csv").touch()
    assert finished("table-3", setting, tmp_path) is None
    run_items(["table-3"], setting, tmp_path)
    assert finished("table-3", setting, tmp_path) is not None
    monkeypatch.setattr("fluidgate.execution.kept.code_version", lambda: "another")
    assert finished("table-3", setting, tmp_path) is None


def test_a_quick_run_does_not_stand_for_a_full_one(tmp_path: Path) -> None:
    run_items(["table-3"], QUICK, tmp_path)
    assert finished("table-3", QUICK, tmp_path) is not None
    assert finished("table-3", Setting(), tmp_path) is None
    (tmp_path / "table-3.json").write_text("{")
    assert finished("table-3", QUICK, tmp_path) is None


def test_bad_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match="did you mean 'figure-7'"):
        find_item("figure7")
    (tmp_path / "file").write_text("")
    with pytest.raises(FluidgateError, match="out"):
        run_items(["table-3"], QUICK, tmp_path / "file")


def test_dolly_is_analysed_where_it_is_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    with (tmp_path / DOLLY).open("w") as file:
        for c in CATEGORIES:
            for prompt, output in zip(rng.exponential(c.prompt, 400), rng.exponential(c.output, 400), strict=True):
                row = {"instruction": "p" * int(prompt), "context": "", "response": "d" * (1 + int(output))}
                file.write(json.dumps({**row, "category": c.key}) + "\n")
    setting = Setting(quick=True, data=str(tmp_path))
    records = run_items(["table-1", "table-2", "figure-11", "figure-12"], setting, tmp_path / "out")
    means = frame(tmp_path / "out", "table-1")
    assert means["here D"].to_numpy() == pytest.approx(means["paper D"].to_numpy(), rel=0.2)
    assert set(means["here samples"]) == {400}
    assert [r["verdicts"][0]["holds"] is None for r in records] == [False] * 4
    assert records[3]["verdicts"][0]["holds"] is True
    assert "information_extraction" in records[2]["verdicts"][0]["measured"]


def test_without_dolly_nothing_is_claimed(run: tuple[Path, dict[str, dict]]) -> None:
    for item in ("table-1", "table-2", "figure-12"):
        assert run[1][item]["verdicts"][0]["holds"] is None
    assert DOLLY in run[1]["table-1"]["verdicts"][0]["measured"]


def ratios(**columns: list[float]) -> pd.DataFrame:
    values = {policy: [0.9, 0.9, 0.9, 0.9] for policy in POLICIES}
    return pd.DataFrame(values | {name.replace("_", "-"): column for name, column in columns.items()})


def test_verdicts_of_figure_7_follow_the_numbers() -> None:
    best = claims(
        ratios(
            gate_and_route=[0.98, 0.97, 0.98, 0.97],
            gi_wsp=[0.95, 0.96, 0.95, 0.96],
            gf_wsp=[0.94, 0.95, 0.93, 0.94],
            fg_sp=[0.8, 0.85, 0.91, 0.85],
        ),
        "",
    )
    assert [v.holds for v in best] == [True, False, True, True]
    beaten = claims(ratios(gf_wsp=[0.95, 0.94, 0.95, 0.94], gi_wsp=[0.85, 0.86, 0.85, 0.86]), "")
    assert [v.holds for v in beaten] == [False, True, False, False]
    assert wins(ratios(fi_wsp=[0.95, 0.95, 0.8, 0.8]))["fi-wsp"] == 0.5


def test_rate_is_the_slope_of_the_gap() -> None:
    n = np.array([5, 50, 500, 5000])
    slope, error = rate(pd.DataFrame({"gpus": n, "gap": 0.3 * n**-0.5}))
    assert slope == pytest.approx(-0.5)
    assert error == pytest.approx(0.0, abs=1e-6)


def test_tpot_prices_come_in_steps() -> None:
    steps = price_steps(frontier(two_class(), "max_tpot", points=41))
    assert steps[0] == pytest.approx(558_000, rel=0.01)
    assert steps[1] == pytest.approx(91_000, rel=0.02)


def test_random_instances_are_in_the_printed_ranges_and_repeat() -> None:
    drawn = [random_instance(7, k) for k in range(200)]
    assert drawn[3] == random_instance(7, 3)
    assert drawn[3] != random_instance(8, 3)
    law = [s.gpu.iteration for s in drawn]
    assert all(0.015 <= x.alpha <= 0.02 and 1e-5 <= x.beta <= 1e-3 and 10 <= x.gamma <= 50 for x in law)
    assert {len(s.classes) for s in drawn} == {2, 3, 4}
    assert all(200 <= c.prompt_tokens <= 3000 and 0.25 <= c.arrival_rate <= 0.5 for s in drawn for c in s.classes)
    assert 0.2 < np.mean([s.gpu.kappa >= 1 for s in drawn]) < 0.9
    assert plan(drawn[0]).revenue_rate > 0
