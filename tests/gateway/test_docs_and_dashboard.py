"""The pages on the gateway, the example and the dashboard say what the code does."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import tomlkit
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from fluidgate.errors import FluidgateError
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.gateway.gateway_tables import GatewayTable, GroupTable
from fluidgate.policies.catalogue import POLICIES
from fluidgate.policies.placed import PLACED
from tests.gateway.served import live_gateway

ROOT = Path(__file__).parents[2]
PAGES = ("guides/gateway.md", "reference/gateway-file.md", "reference/gateway-api.md", "reference/metrics.md")
TEXT = "\n".join((ROOT / "docs" / page).read_text("utf-8") for page in PAGES)
EXAMPLE = ROOT / "examples" / "gateway.toml"
DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text("utf-8"))
PROMETHEUS_OWN = {"job", "le"}


def rows_below(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = re.split(r"^#+ ", TEXT.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def tables(model: type[BaseModel], heading: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A table of the gateway file and those in it, each with its heading on the page."""
    yield heading, model
    for name, field in model.model_fields.items():
        inner = field.annotation
        within = [each for each in (inner, *get_args(inner)) if isinstance(each, type) and issubclass(each, BaseModel)]
        if within and within[0] is not GroupTable:  # its keys are those of a file with one group
            dotted = f"{heading.strip('#[] ')}.{name}" if heading.startswith("## ") else name
            yield from tables(within[0], f"## [[{dotted}]]" if get_origin(inner) is list else f"## [{dotted}]")


TABLES = list(tables(GatewayTable, "# The gateway file"))


@pytest.mark.parametrize(("heading", "model"), TABLES, ids=[heading for heading, _ in TABLES])
def test_the_page_lists_every_key_with_its_default(heading: str, model: type[BaseModel]) -> None:
    listed = {key.strip("`"): default for key, default, _ in rows_below(heading)}
    own = {f.alias or name: f for name, f in model.model_fields.items() if "[table" not in str(f.description)}
    below = {"groups", *(h.strip("#[] ").rpartition(".")[2] for h, _ in TABLES)}
    keys = {name: f for name, f in own.items() if name not in below}
    assert sorted(listed) == sorted(keys)
    for name, field in keys.items():
        default = field.get_default(call_default_factory=True)
        if not field.is_required() and default is not None:
            shown = listed[name].strip("`")
            assert tomlkit.parse(f"x = {shown}").unwrap() == {"x": default}, name


def test_the_example_loads_and_names_every_class() -> None:
    (settings,) = GatewaySettings.load(EXAMPLE).groups
    assert [url[-4:] for url in settings.engines.urls] == ["8001", "8002", "8003", "8004"]
    assert settings.scenario.name == "two-class"
    named = {rule.cls for rule in settings.rules} | {settings.scenario.class_names[settings.default_class]}
    assert named == set(settings.scenario.class_names)


def test_the_page_names_the_policies_that_are_refused() -> None:
    sentence = TEXT.split("\n## Policies that make sense live\n")[1].split(":")[0]
    refused = set(re.findall(r"`([\w-]+)`", sentence))
    assert refused
    for name in refused:
        with pytest.raises(FluidgateError, match="more than a placement"):
            GatewaySettings.load(EXAMPLE, policy=name)
    for name in {*POLICIES, *PLACED} - refused:
        GatewaySettings.load(EXAMPLE, policy=name)


def scrape_of(tmp_path: Path, **options: Any) -> tuple[dict[str, set[str]], set[str]]:
    """Labels of each sample of a gateway that has served and refused, and the fields of its log."""

    async def run() -> tuple[str, set[str]]:
        digest = hashlib.sha256(b"sk-a").hexdigest()
        options.setdefault("more", f'[[keys]]\nname = "a"\nsha256 = "{digest}"\n')
        headers = {"authorization": "Bearer sk-a"}
        async with live_gateway(tmp_path, **options) as live:
            await live.complete(3, headers=headers)
            await live.post(prompt="x", model="another", headers=headers)
            await live.until(lambda: len(live.records()) == 2)
            fields = set[str]().union(*live.records())
            return (await live.get("/metrics")).content.decode(), fields

    text, fields = asyncio.run(run())
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    own = {name: labels for name, labels in samples.items() if name.startswith("fluidgate_")}
    return {name: labels for name, labels in own.items() if not name.endswith("_created")}, fields


def test_page_and_dashboard_know_the_scrape_and_the_log(tmp_path: Path) -> None:
    samples, fields = scrape_of(tmp_path)
    base = {re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in samples.items()}
    listed = {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, labels, _ in rows_below("## Metrics")
        for name in re.findall(r"`(\w+)`", names)
    }
    assert listed == base
    assert {name for row in rows_below("## The request log") for name in re.findall(r"`(\w+)`", row[0])} == fields

    queried = list(queries())
    assert len(queried) > 30
    for expression, legend in queried:
        names = re.findall(r"\bfluidgate_\w+", expression)
        assert names
        for name in names:
            assert name in samples, expression
        known = set.union(*(samples[name] for name in names)) | PROMETHEUS_OWN
        assert labels_of(expression, legend) <= known, expression
    used = {name for expression, _ in queried for name in re.findall(r"\bfluidgate_\w+", expression)}
    assert {re.sub(r"_bucket$", "", name) for name in used} == set(base)
    for variable in DASHBOARD["templating"]["list"][1:]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
        assert label in samples[name] | PROMETHEUS_OWN


def queries() -> Iterator[tuple[str, str]]:
    """Expression and legend of each query of the dashboard."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]


def labels_of(expression: str, legend: str) -> set[str]:
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = [name for group in re.findall(r"\bby \(([^)]*)\)", expression) for name in group.split(", ")]
    return {*matched, *grouped, *re.findall(r"\{\{(\w+)\}\}", legend)}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def reasons_in_the_code() -> set[str]:
    """What errors are called where they are made."""
    found: set[str] = set()
    for path in (ROOT / "fluidgate" / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            place = {"ApiError": 1, "busy": 0, "unavailable": 0, "_again": 0}.get(called)
            given = [] if place is None else node.args[place : place + 1]
            given += [each.value for each in node.keywords if each.arg == "reason"]
            for each in given:
                found |= {n.value for n in ast.walk(each) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found


def test_the_page_lists_every_reason() -> None:
    table = re.search(r"\| status \| reason \|.*?\n\n", TEXT, re.DOTALL)
    assert table is not None
    reasons = "".join(row.split("|")[2] for row in table[0].splitlines() if row)
    assert set(re.findall(r"`(\w+)`", reasons)) == reasons_in_the_code() | {"invalid_request"}
