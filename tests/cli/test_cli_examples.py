"""`fluidgate examples`, and the schemas beside the copies."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
from command import ROOT, Command

from fluidgate.cli.schema import KINDS, text_of

EXAMPLES = ROOT / "examples"
DIRECTIVE = re.compile(r"#:schema (\S+)\n")
TOML = [path for path in sorted(EXAMPLES.rglob("*.toml")) if "plugin" not in path.parts]


def test_every_file_is_listed(fluidgate: Command) -> None:
    listed = fluidgate("examples", "--json").json["examples"]
    names = {each["name"] for each in listed}
    assert names == {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    table = fluidgate("examples").output
    assert all(name in table for name in names)
    assert all(each["shows"] in table for each in listed)


def test_all_are_copied_byte_by_byte(fluidgate: Command, tmp_path: Path) -> None:
    copied = fluidgate("examples", tmp_path / "new", "--json").json["copied"]
    assert len(copied) > 30
    for path in map(Path, copied):
        assert path.read_bytes() == (EXAMPLES / path.relative_to(tmp_path / "new" / "examples")).read_bytes()


def test_with_an_example_goes_what_it_names(
    fluidgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fluidgate("examples", ".", "gateway.toml", "own_policy.py").status == 0
    there = {path.name for path in Path("examples").iterdir()}
    schemas = {"scenario.schema.json", "gateway.schema.json"}
    assert there == {"gateway.toml", "two-class.toml", "own_policy.py", "README.md"} | schemas
    assert fluidgate("plan", "examples/two-class.toml").status == 0


def test_nothing_is_replaced_unasked(fluidgate: Command, tmp_path: Path) -> None:
    fluidgate("examples", tmp_path, "tiny.toml")
    mine = tmp_path / "examples" / "tiny.toml"
    assert fluidgate("examples", tmp_path, "tiny.toml").status == 0, "the same files may be copied again"
    mine.write_text("mine", "utf-8")
    refused = fluidgate("examples", tmp_path)
    assert refused.status == 2
    assert refused.notices == [
        f"fluidgate: {mine}: is there already and differs; give another folder, or --force to replace it"
    ]
    assert mine.read_text("utf-8") == "mine"
    assert not (tmp_path / "examples" / "azure.toml").exists()
    assert fluidgate("examples", tmp_path, "--force").status == 0
    assert mine.read_bytes() == (EXAMPLES / "tiny.toml").read_bytes()


def test_a_wrong_name_or_folder_is_one_line(fluidgate: Command, tmp_path: Path) -> None:
    wrong = fluidgate("examples", tmp_path, "azur.toml")
    assert (wrong.status, wrong.notices) == (2, ["fluidgate: no example 'azur.toml'; did you mean 'azure.toml'?"])
    (tmp_path / "file").write_text("", "utf-8")
    refused = fluidgate("examples", tmp_path / "file")
    assert refused.status == 2
    assert len(refused.notices) == 1
    assert "can't be written" in refused.notices[0]


@pytest.mark.parametrize("path", TOML, ids=lambda path: path.name)
def test_each_file_names_the_schema_it_keeps_to(path: Path) -> None:
    text = path.read_text("utf-8")
    named = DIRECTIVE.match(text)
    assert named is not None
    schema = json.loads((path.parent / named[1]).read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(tomllib.loads(text))


@pytest.mark.parametrize("kind", KINDS)
def test_the_schemas_are_those_of_the_code(kind: str) -> None:
    """`fluidgate schema --save examples` brings them up to date."""
    assert (EXAMPLES / f"{kind}.schema.json").read_text("utf-8") == text_of(kind)


def test_schemas_are_saved_for_editors(fluidgate: Command, tmp_path: Path) -> None:
    assert fluidgate("schema", "--save", tmp_path).status == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{kind}.schema.json" for kind in KINDS}
    assert (tmp_path / "gateway.schema.json").read_text("utf-8") == fluidgate("schema", "gateway").output
    missing = fluidgate("schema", "--save", tmp_path / "no")
    assert (missing.status, len(missing.notices)) == (2, 1)


def test_the_small_trace_is_what_its_script_draws() -> None:
    from scripts.draw_trace import draw

    assert (EXAMPLES / "chat-and-code.csv").read_text("utf-8").splitlines() == draw()
