from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime
from fluidgate.profiles import (
    Profile,
    dump_profile,
    find_profile,
    load_profile,
    parse_profile,
    shipped,
    write_profile,
)

LAB = 'schema = 1\nname = "lab"\nalpha = 0.01\nbeta = 1e-5\ngamma = 50\nbatch_sizes = [1, 64]\n'


def refusal(text: str) -> str:
    with pytest.raises(FluidgateError) as caught:
        parse_profile(text, "lab.toml")
    return str(caught.value).removeprefix("lab.toml: ")


@pytest.mark.parametrize(
    ("name", "alpha", "beta", "gamma", "r_squared"),
    [
        ("a100-40gb/qwen-8b", 0.0174, 6.2e-5, 45.45, 0.998),
        ("a100-40gb/qwen-4b", 0.0152, 3.6e-5, 52.63, 0.997),
    ],
)
def test_shipped_profiles_are_the_published_calibration(
    name: str, alpha: float, beta: float, gamma: float, r_squared: float
) -> None:
    profile = find_profile(name)
    assert profile in shipped()
    assert profile.iteration == IterationTime(alpha=alpha, beta=beta, gamma=gamma)
    assert profile.r_squared == r_squared
    assert profile.engine == "vLLM 0.11.0"
    assert "arXiv:2602.02987" in profile.source
    assert profile.batch_sizes is None
    assert "not published" in profile.notes


def test_shipped_profiles_are_sorted_and_named_like_their_files() -> None:
    assert [p.name for p in shipped()] == sorted(p.name for p in shipped())
    root = Path(__file__).parents[1] / "fluidgate" / "profiles"
    files = {str(file.relative_to(root).with_suffix("").as_posix()) for file in root.glob("*/*.toml")}
    assert {p.name for p in shipped()} == files


def test_a_profile_file_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAB)
    profile = find_profile("lab.toml", tmp_path)
    assert profile == load_profile(tmp_path / "lab.toml") == find_profile(tmp_path / "lab.toml")
    assert profile.iteration == IterationTime(alpha=0.01, beta=1e-5, gamma=50)
    assert profile.batch_sizes == (1, 64)
    assert profile.to_dict() == {
        "schema": 1,
        "name": "lab",
        "alpha": 0.01,
        "beta": 1e-5,
        "gamma": 50.0,
        "batch_sizes": (1, 64),
    }


def test_an_unknown_name() -> None:
    with pytest.raises(FluidgateError) as caught:
        find_profile("a100-40gb/qwen")
    assert str(caught.value).startswith("unknown profile 'a100-40gb/qwen'; did you mean 'a100-40gb/qwen-")
    with pytest.raises(FluidgateError, match=r"no\.toml: no such file; give the path of a profile file"):
        find_profile("no.toml", "somewhere")


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        (LAB, "", "empty; write the keys of a profile: "),
        ("gamma", "gama", "gama: unknown key; did you mean 'gamma'?"),
        ("1e-5", "0", "beta: must be greater than 0, but is 0; give the seconds that a prompt token adds"),
        ("50", "nan", "gamma: must be a finite number, but is nan; give "),
        ("beta = 1e-5\n", "", "beta: missing; add 'beta = 6.2e-05', the seconds that a prompt token adds"),
        ("schema = 1", "schema = 7", "schema: is 7, but this fluidgate reads schema 1; "),
        ("[1, 64]", "[64, 1]", "batch_sizes: the least, 64, is above the greatest, 1; exchange them"),
        ("[1, 64]", "[1]", "batch_sizes: must have at least 2, but has 1; give the least and the greatest"),
        ("[1, 64]", "[1, 64, 128]", "batch_sizes: must have at most 2, but has 3; give "),
        ("[1, 64]", "[0, 64]", "batch_sizes[0]: must be at least 1, but is 0; give the least and the"),
        ("[1, 64]", "64", "batch_sizes: must be an array, but is 64; give "),
        ("gamma = 50", "gamma", "line 5, column 6: not TOML: "),
    ],
)
def test_mistakes(old: str, new: str, start: str) -> None:
    assert old in LAB
    assert refusal(LAB.replace(old, new)).startswith(start)


positive = st.floats(min_value=1e-9, max_value=1e9)
sizes = st.none() | st.tuples(st.integers(1, 99), st.integers(100, 999))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(texts, positive, positive, st.none() | st.floats(0, 1), sizes)
def test_parsing_a_dumped_profile_gives_it_back(
    text: str, beta: float, gamma: float, r_squared: float | None, sizes: tuple[int, int] | None
) -> None:
    profile = Profile(
        name="lab/" + text,
        iteration=IterationTime(alpha=-beta, beta=beta, gamma=gamma),
        source=text,
        r_squared=r_squared,
        chunk_sizes=sizes,
    )
    assert parse_profile(dump_profile(profile), "lab.toml") == profile


def test_a_written_profile_is_read_back(tmp_path: Path) -> None:
    profile = shipped()[0]
    write_profile(profile, tmp_path / "copy.toml")
    assert load_profile(tmp_path / "copy.toml") == profile
