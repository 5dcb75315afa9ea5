from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.model import IterationTime
from fluidgate.profiles import (
    LawRow,
    Profile,
    dump_profile,
    find_profile,
    load_profile,
    parse_profile,
    shipped,
    write_profile,
)
from fluidgate.scenario_file import parse_scenario

LAB = 'schema = 1\nname = "lab"\nalpha = 0.01\nbeta = 1e-5\ngamma = 50\nbatch_sizes = [1, 64]\n'


LAW = """schema = 1
name = "lab"
chunk_sizes = [256, 2048]

[[law]]
batch_size = 8
alpha = 0.01
beta = 1e-5
gamma = 50

[[law]]
batch_size = 24
alpha = 0.03
beta = 3e-5
gamma = 25
r_squared = 0.99
"""


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


def test_a_law_over_the_batch_size() -> None:
    profile = parse_profile(LAW, "lab.toml")
    assert profile.iteration is None
    assert profile.batch_sizes == (8, 24)
    assert profile.law == (
        LawRow(batch_size=8, alpha=0.01, beta=1e-5, gamma=50),
        LawRow(batch_size=24, alpha=0.03, beta=3e-5, gamma=25, r_squared=0.99),
    )
    assert profile.iteration_at(8) == IterationTime(alpha=0.01, beta=1e-5, gamma=50)
    assert profile.iteration_at(24) == IterationTime(alpha=0.03, beta=3e-5, gamma=25)
    between = profile.iteration_at(12)
    # a quarter of the way; the solo time goes from 20 to 40 ms
    assert between.model_dump() == pytest.approx({"alpha": 0.015, "beta": 1.5e-5, "gamma": 1 / 0.025})
    assert between.mixed(256) == pytest.approx(0.75 * (0.01 + 256e-5) + 0.25 * (0.03 + 768e-5))


@pytest.mark.parametrize("batch_size", [7, 25])
def test_a_batch_size_outside_the_law(batch_size: int) -> None:
    with pytest.raises(FluidgateError) as caught:
        parse_profile(LAW, "lab.toml").iteration_at(batch_size)
    assert str(caught.value) == (
        f"profile 'lab' holds for batch sizes 8 to 24, but batch_size is {batch_size}; give one in that range, or "
        "calibrate a profile at yours"
    )


def test_one_iteration_time_holds_for_every_batch_size() -> None:
    profile = parse_profile(LAB, "lab.toml")
    assert profile.iteration_at(1) == profile.iteration_at(4096) == profile.iteration


@pytest.mark.parametrize(
    ("old", "new", "start"),
    [
        ("name", "alpha = 1.0\nname", "alpha: not together with [[law]]; remove it here, and give it in each table"),
        ("name", "batch_sizes = [8, 24]\nname", "batch_sizes: not together with [[law]], whose rows say it; remove it"),
        ("beta = 1e-5\n", "", "law[0]: beta: missing; add 'beta = 6.2e-05', the seconds that a prompt token adds"),
        ("gamma = 25", "gama = 25", "law[1]: gama: unknown key; did you mean 'gamma'?"),
        ("batch_size = 24", "batch_size = 0", "law[1]: batch_size: must be at least 1, but is 0; give the batch size"),
        ("batch_size = 24", "batch_size = 8", "law[1]: batch_size: 8 does not exceed the row before, 8; put the rows"),
        (
            "batch_size = 8",
            "batch_size = 32",
            "law[1]: batch_size: 24 does not exceed the row before, 32; put the rows",
        ),
        (LAW[LAW.rindex("[[law]]") :], "", "law: must have at least 2, but has 1; give the tables [[law]], each with"),
        ("[256, 2048]", "[2048, 256]", "chunk_sizes: the least, 2048, is above the greatest, 256; exchange them"),
    ],
)
def test_mistakes_in_a_law(old: str, new: str, start: str) -> None:
    assert old in LAW
    assert refusal(LAW.replace(old, new)).startswith(start)


def test_a_file_without_an_iteration_time_hears_of_both_forms() -> None:
    assert "(or give tables [[law]], by batch_size, instead of alpha, beta and gamma)" in refusal('name = "lab"\n')


rows = st.lists(st.tuples(st.integers(1, 999), positive, positive, st.none() | st.floats(0, 1)), min_size=2, max_size=5,
                unique_by=lambda row: row[0])  # fmt: skip


@given(rows)
def test_parsing_a_dumped_law_gives_it_back(rows: list[tuple[int, float, float, float | None]]) -> None:
    law = tuple(
        LawRow(batch_size=size, alpha=-beta, beta=beta, gamma=gamma, r_squared=r_squared)
        for size, beta, gamma, r_squared in sorted(rows)
    )
    profile = Profile(name="lab", law=law, batch_sizes=(law[0].batch_size, law[-1].batch_size), notes='a "b"')
    assert parse_profile(dump_profile(profile), "lab.toml") == profile


def test_a_profile_has_one_form() -> None:
    law = (LawRow(batch_size=1, alpha=0, beta=1, gamma=1), LawRow(batch_size=2, alpha=0, beta=1, gamma=1))
    one = IterationTime(alpha=0, beta=1, gamma=1)
    for wrong in (
        {},
        {"iteration": one, "law": law, "batch_sizes": (1, 2)},
        {"law": law},
        {"law": law[:1], "batch_sizes": (1, 1)},
        {"law": law[::-1], "batch_sizes": (2, 1)},
    ):
        with pytest.raises(ValueError, match="law"):
            Profile(name="lab", **wrong)


def test_a_scenario_takes_the_law_at_its_batch_size(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(LAW)
    text = (Path(__file__).parents[1] / "examples" / "two-class.toml").read_text("utf-8")
    kept = [line for line in text.splitlines() if not line.startswith(("alpha", "beta", "gamma"))]
    scenario = "\n".join(kept).replace("[gpu]", '[gpu]\nprofile = "lab.toml"')
    gpu = parse_scenario(scenario, "s.toml", tmp_path).gpu
    assert gpu.iteration == load_profile(tmp_path / "lab.toml").iteration_at(16)
    with pytest.raises(FluidgateError) as caught:
        parse_scenario(scenario.replace("batch_size = 16", "batch_size = 25"), "s.toml", tmp_path)
    assert str(caught.value).startswith("s.toml: gpu.profile: profile 'lab' holds for batch sizes 8 to 24, but ")
