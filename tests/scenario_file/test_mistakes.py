from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.scenario_file import load_scenario, parse_scenario
from tests.scenario_file.mistakes import REFUSED
from tests.scenario_file.texts import NUMBERS, TWO, changed, refusal


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_line_with_key_reason_and_mend(case: str) -> None:
    replacements, start = REFUSED[case]
    assert refusal(changed(*replacements)).startswith(start)


@pytest.mark.parametrize("text", ["", "\n  # nothing\n"])
def test_an_empty_file(text: str) -> None:
    assert refusal(text) == "empty; write a scenario: name, [gpu], [[classes]], and [pricing] where something is earned"


def test_no_classes() -> None:
    header = TWO[: TWO.index("[[")]
    assert refusal(header).startswith("classes: missing; add the classes of requests, each a table [[classes]]")
    assert refusal("classes = []\n" + header).startswith("classes: must have at least 1, but has 0; give ")


def test_mistakes_in_a_profile_file_name_both_files(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('name = "lab"\nalpha = 0.01\nbeta = 0\ngamma = 50\n')
    message = refusal(changed((NUMBERS, 'profile = "lab.toml"\n')), base_dir=tmp_path)
    assert message.startswith(f"gpu.profile: {tmp_path / 'lab.toml'}: beta: must be greater than 0, but is 0; ")


def load_refusal(path: Path) -> str:
    with pytest.raises(FluidgateError) as caught:
        load_scenario(path)
    return str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "no.toml"
    assert load_refusal(missing) == f"{missing}: no such file; give the path of a scenario file"
    assert load_refusal(tmp_path) == f"{tmp_path}: a folder; give the path of a scenario file"
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'# first\nname = "caf\xe9"\n')
    assert load_refusal(latin) == f"{latin}: line 2: not UTF-8; save the file as UTF-8"
    assert "cannot be read" in load_refusal(tmp_path / "a\0b")

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert load_refusal(latin) == f"{latin}: cannot be read (Permission denied); give a scenario file that can"


@given(st.text(max_size=60) | st.text(alphabet='[]="\n.ab1{}, ', max_size=60))
def test_any_text_is_a_scenario_or_one_line(text: str) -> None:
    with pytest.raises(FluidgateError, match=r"\Ax\.toml: [^\n]+\Z"):
        parse_scenario(text, "x.toml")


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just([]) | st.just({})


@given(st.sampled_from(re.findall(r"= (.+)\n", TWO)), values)
def test_any_value_is_accepted_or_refused(old: str, new: Any) -> None:
    import tomlkit

    value = "" if new is None else tomlkit.item(new).as_string()
    with contextlib.suppress(FluidgateError):
        parse_scenario(TWO.replace(f"= {old}\n", f"= {value}\n"))
