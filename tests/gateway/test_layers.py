"""Imports within the gateway point down: client, the gateway itself, dispatch and engines, prefixes; no circle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "fluidgate.gateway"
FLOORS = {"client": 3, "dispatch": 1, "engines": 1, "prefixes": 0}
"""By folder; what lies in none is on floor 2. Dispatch and engines know nothing of each other."""


def imports() -> dict[str, set[str]]:
    """The modules of the gateway that each imports, those for type checkers among them."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "fluidgate" / "gateway").rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        named = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        of = {each if each in files else each.rpartition(".")[0] for each in named}
        found[name] = {each for each in of if each in files and each != PACKAGE} - {name}
    return found


def folder(module: str) -> str:
    part = module.removeprefix(f"{PACKAGE}.").split(".")[0]
    return part if part in FLOORS else ""


def test_imports_point_down() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if folder(module) != folder(other) and FLOORS.get(folder(module), 2) <= FLOORS.get(folder(other), 2)
    ]
    assert wrong == []


def test_there_is_no_circle() -> None:
    graph = imports()
    assert len(graph) > 30
    TopologicalSorter(graph).prepare()
