"""The notebooks run, and hold what they show when they run; `python tests/library/test_notebooks.py` stores that."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 300


def run(path: Path) -> dict[str, Any]:
    """The notebook with what its cells show, run where it lies.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": str(path.parent)}}).execute()
    made: dict[str, Any] = json.loads(nbformat.writes(book))
    for cell in made["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if not gone(output)]
    made["metadata"]["language_info"] = {"name": "python"}
    return made


def gone(output: dict[str, Any]) -> bool:
    """Whether it is a bar of a run that has ended."""
    return output["output_type"] == "display_data" and not "".join(output["data"].get("text/html", "."))


def texts(book: dict[str, Any]) -> list[str]:
    """What the cells show but for pictures."""
    found = []
    for output in outputs(book):
        data = output.get("data", {"text/plain": output.get("text", "")})
        found.append("".join(data.get("text/html", data.get("text/plain", ""))))
    return found


def outputs(book: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in book["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


def pictures(book: dict[str, Any]) -> list[bytes]:
    data = [output["data"] for output in outputs(book) if "image/png" in output.get("data", {})]
    return [base64.b64decode("".join(each["image/png"])) for each in data]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_holds_what_it_shows(path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    stored = json.loads(path.read_text("utf-8"))
    made = run(path)
    assert texts(made) == texts(stored)
    assert [len(each["outputs"]) for each in made["cells"] if "outputs" in each] == [
        len(each["outputs"]) for each in stored["cells"] if "outputs" in each
    ]
    assert len(pictures(made)) == len(pictures(stored)) >= 1
    assert all(each.startswith(b"\x89PNG") for each in pictures(made))


def test_there_are_three_and_they_are_small() -> None:
    assert len(NOTEBOOKS) == 3
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1_500_000


def main() -> None:
    for path in NOTEBOOKS:
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            path.write_text(json.dumps(run(path), indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
