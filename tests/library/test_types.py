"""What type checkers of a user's program see."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import fluidgate

NOUNS = [*Path("fluidgate").glob("*.py"), Path("fluidgate/profiles/profile.py")]


def test_a_default_is_one_to_those_who_know_nothing_of_pydantic() -> None:
    """They take a field whose default `Field` has by place as one that must be given (PEP 681)."""
    by_place = [
        f"{file}:{each.lineno}"
        for file in NOUNS
        for each in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.value, ast.Call)
        and getattr(each.value.func, "id", "") == "Field"
        and each.value.args
    ]
    assert by_place == []


def test_the_package_says_that_it_is_typed_and_functions_keep_their_signatures() -> None:
    assert (Path(fluidgate.__file__).parent / "py.typed").exists()
    for name in fluidgate.__all__:
        found = getattr(fluidgate, name)
        if inspect.isfunction(found):
            signature = inspect.signature(found)
            assert signature.return_annotation is not signature.empty, name
            assert all(each.annotation is not each.empty for each in signature.parameters.values()), name
