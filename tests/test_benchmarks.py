"""The programs of `benchmarks/` find what they import of fluidgate, where they import it late too."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROGRAMS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


def has(module: ModuleType, name: str) -> bool:
    return hasattr(module, name) or importlib.util.find_spec(f"{module.__name__}.{name}") is not None


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_what_a_benchmark_imports_is_there(program: Path) -> None:
    missing = []
    for node in ast.walk(ast.parse(program.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fluidgate"):
            module = importlib.import_module(str(node.module))
            missing += [name.name for name in node.names if not has(module, name.name)]
    assert missing == []
