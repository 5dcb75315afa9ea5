"""The documentation runs: every `$ fluidgate ...` of its console blocks, and the code it includes.

The `>>>` examples run as doctests (`addopts` in pyproject.toml). After a change that moves numbers on purpose,
`python tests/test_docs.py [PAGE...]` writes what the commands print now into the pages.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fluidgate.cli.app import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DATA = ROOT.parent / "shared" / "data"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUTS = ("-o", "--output", "--plot", "--qq", "--html", "--out", "--save")
COMPILING = "fluidgate: compil"
OWN_POLICY = "python examples/own_policy.py"


@dataclass(frozen=True)
class Example:
    """A command of a console block and the lines shown below it."""

    page: str
    command: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """Exit status and lines, standard error first; paths are those of the command as it was written."""

    status: int
    lines: list[str]
    written: list[Path]


def examples_of(block: str, page: str) -> list[Example]:
    found: list[Example] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = re.sub(r" *\\\n +", " ", part).rstrip("\n").split("\n")
        found.append(Example(page, command, tuple(line.rstrip() for line in shown)))
    return found


PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
EXAMPLES = [
    example
    for page in PAGES
    for block in BLOCK.findall(page.read_text("utf-8"))
    for example in examples_of(block, page.name)
    if example.command.startswith("fluidgate ")  # not benchmarks; see also test_own_policy_example_runs
]


def run(example: Example, folder: Path) -> Outcome:
    """Run a command with its output files in `folder`, and the public traces where the checkout keeps them."""
    words = shlex.split(example.command)
    assert words[0] == "fluidgate", example.command
    renamed: dict[str, str] = {}
    written = []
    for k, word in enumerate(words):
        if words[k - 1] in OUTPUTS:
            written.append(folder / Path(word).name)
            renamed[str(written[-1])] = word
        elif word.endswith((".csv", ".jsonl", ".jsonl.gz")) and not (ROOT / word).exists():
            if not (DATA / word).exists():
                pytest.skip(f"{word} is not at ../shared/data")
            renamed[str(DATA / word)] = word
    for path, word in renamed.items():
        words[words.index(word)] = path
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(ROOT):
        try:
            main(words[1:])
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
    text = err.getvalue() + out.getvalue()
    for path, word in renamed.items():
        text = text.replace(path, word)
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith(COMPILING)]
    return Outcome(status, lines, written)


def matches(shown: list[str], actual: list[str]) -> bool:
    """Whether the lines are the same; a shown line `...` stands for any lines."""
    if not shown:
        return not actual
    if shown[0] == "...":
        return any(matches(shown[1:], actual[k:]) for k in range(len(actual) + 1))
    return bool(actual) and shown[0] == actual[0] and matches(shown[1:], actual[1:])


def full(lines: list[str] | tuple[str, ...]) -> list[str]:
    return [line for line in lines if line]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.page}: {e.command[:60]}")
def test_console_example(example: Example, tmp_path: Path) -> None:
    outcome = run(example, tmp_path)
    shows_error = any(line.startswith("fluidgate: ") and "warning" not in line for line in example.shown)
    assert outcome.status == (2 if shows_error else 0), outcome.lines
    for file in outcome.written:
        assert file.stat().st_size > 0
    if example.shown:
        assert matches(full(example.shown), full(outcome.lines)), "\n".join(
            ["the page shows something else; `python tests/test_docs.py` brings it up to date", *outcome.lines]
        )


@pytest.mark.parametrize("index", sorted(DOCS.glob("*/index.md")), ids=lambda index: index.parent.name)
def test_every_page_is_linked_from_the_index_of_its_part(index: Path) -> None:
    pages = {page.name for page in index.parent.glob("*.md")} - {"index.md"}
    text = index.read_text("utf-8")
    assert pages == set(re.findall(r"\]\((\w[\w-]*\.md)\)", text.partition("```{toctree}")[0]))


def test_own_policy_page_includes_the_example() -> None:
    page = (DOCS / "tutorials" / "own-policy.md").read_text("utf-8")
    assert f"```python\n{(ROOT / 'examples' / 'own_policy.py').read_text('utf-8')}```" in page


def test_own_policy_example_runs() -> None:
    page = (DOCS / "tutorials" / "own-policy.md").read_text("utf-8")
    assert f"```console\n$ {OWN_POLICY}\n{own_policy_output()}```" in page


def own_policy_output() -> str:
    command = [sys.executable, *shlex.split(OWN_POLICY)[1:]]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout


def test_a_difference_is_noticed() -> None:
    assert matches(["a", "...", "z"], ["a", "b", "c", "z"])
    assert not matches(["a", "...", "z"], ["a", "b", "c", "y"])
    assert not matches(["a"], ["a", "b"])
    assert [e.shown for e in examples_of("$ fluidgate plan x \\\n    --json\n1\n$ fluidgate schema\n", "")] == [
        ("1",),
        (),
    ]


def rewrite(page: Path, folder: Path) -> None:
    """Put what the commands print now below them; blocks that show nothing, or leave lines out, stay."""

    def renewed(block: re.Match[str]) -> str:
        examples = examples_of(block[1], page.name)
        if len(examples) != 1 or not examples[0].shown or "..." in examples[0].shown:
            return block[0]
        if examples[0].command == OWN_POLICY:
            return f"```console\n$ {OWN_POLICY}\n{own_policy_output()}```"
        if not examples[0].command.startswith("fluidgate "):
            return block[0]
        command = block[1][: block[1].index("\n" + (examples[0].shown[0] or "\n"))]
        lines = run(examples[0], folder).lines
        while lines and not lines[-1]:
            lines.pop()
        return "\n".join(["```console", command, *lines, "```"])

    page.write_text(BLOCK.sub(renewed, page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    import tempfile

    for path in [Path(word) for word in sys.argv[1:]] or PAGES:
        with tempfile.TemporaryDirectory() as temporary:
            rewrite(path, Path(temporary))
