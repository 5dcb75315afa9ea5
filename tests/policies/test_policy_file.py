"""Parameters of policies, and policy files: read, written, and every mistake in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate import FluidgateError, Policy, compare, find_policy, load_policy, plan, simulate
from fluidgate.policies import PLACED, POLICIES, PlacedPolicy, Tables, Tuned, find_any_policy, write_policy
from fluidgate.policies.policy_file import dump_policy, parse_policy, policy_schema
from tests.scenarios import two_class_scenario

SCENARIO = two_class_scenario()
SOLVED = plan(SCENARIO)
OPEN = [p for p in POLICIES.values() if p.parameters]
HEAD = 'schema = 1\npolicy = "gate-and-route"\n'
RECORD = Tuned(scenario="two-class", gpus=50, seed=3, gain=0.9, gain_ci95=[0.8, 1.0], command="fluidgate tune ...")


def same(one: Tables, other: Tables) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def refusal(content: str) -> str | None:
    try:
        parse_policy(content, "p.toml")
    except FluidgateError as error:
        return str(error)
    return None


def test_who_has_parameters() -> None:
    margin = ("gate-and-route", "capped-gate-and-route", "prioritize-and-route", "sli-aware", "sli-aware-general")
    expected = dict.fromkeys((*margin, "fg-sp", "gi-wsp", "gf-wsp"), "margin") | {"index-and-pool": "reservation toll"}
    assert {p.name: " ".join(q.name for q in p.parameters) for p in OPEN} == expected


@pytest.mark.parametrize("policy", OPEN, ids=lambda p: p.name)
def test_declared_defaults_change_nothing(policy: Policy) -> None:
    changed = policy.with_parameters({p.name: p.default for p in policy.parameters})
    assert same(changed.tabulate(SOLVED, 50), policy.tabulate(SOLVED, 50))
    assert changed.values == policy.values


@pytest.mark.parametrize("policy", OPEN, ids=lambda p: p.name)
@pytest.mark.parametrize("gpus", [1, 3, 200])
def test_no_value_in_range_makes_impossible_tables(policy: Policy, gpus: int) -> None:
    for p in policy.parameters:
        for value in (p.low, p.high):
            tables = policy.with_parameters({p.name: value}).tabulate(SOLVED, gpus)
            assert tables.max_prefills >= 1
            assert 1 <= tables.mixed_gpus <= gpus
            assert ((tables.hold >= 0) & (tables.hold < 16 * gpus)).all()


def test_margin_widens_group_and_caps() -> None:
    """`n sum x* = 10.66` on 50 GPUs, so 11 mixed ones; with a quarter more 13.33, so 14."""
    for name in ("gate-and-route", "fg-sp", "gi-wsp"):
        policy = find_policy(name)
        tables = [policy.with_parameters({"margin": m}).tabulate(SOLVED, 50) for m in (0.0, 0.25)]
        assert [t.max_prefills for t in tables] == [11, 14]
        assert [t.mixed_gpus for t in tables] == ([50, 50] if name == "gi-wsp" else [11, 14])
    capped = find_policy("capped-gate-and-route").with_parameters({"margin": 0.25}).tabulate(SOLVED, 50)
    assert capped.cap.tolist() == [2, 13]  # ceil(1.25 * 0.913), ceil(1.25 * 9.748)


def test_reservation_holds_back_all_but_the_best() -> None:
    """`sqrt(16 * 25) = 20` slots for each unit; prefill-heavy requests are worth most and never wait for it."""
    policy = find_policy("index-and-pool")
    rule = policy.tabulate(SOLVED, 25).hold
    held = [policy.with_parameters({"reservation": r}).tabulate(SOLVED, 25).hold for r in (0.5, -2.0)]
    assert (held[0] - rule).tolist() == [10, 0]
    assert held[1].tolist() == [0, 0]


def test_reservation_keeps_gpus_ready_where_prompts_are_paid_apart() -> None:
    """`sqrt(25) = 5` GPUs for each unit."""
    separate = plan(SCENARIO.replace(pricing=SCENARIO.pricing.model_copy(update={"scheme": "separate"})))
    policy = find_policy("index-and-pool")
    rule = policy.tabulate(separate, 25).ready
    kept = [policy.with_parameters({"reservation": r}).tabulate(separate, 25) for r in (1.0, 2.0, -2.0)]
    assert [k.ready for k in kept] == [rule + 5, rule + 10, 0]
    assert not any(k.hold.any() for k in kept)


def test_parameters_of_a_users_own() -> None:
    from fluidgate.policies import Parameter, tables_of

    def tabulate(plan: Any, gpus: int, *, extra: float = 2.0) -> Tables:
        return tables_of(plan, gpus)._replace(max_prefills=int(extra))

    mine = find_policy("gate-and-route").with_functions(
        "mine", tabulate=tabulate, parameters=(Parameter("extra", 2, 1, 9, "prefills at a time", whole=True),)
    )
    assert mine.values == {"extra": 2}
    assert mine.with_parameters({"extra": 4}).tabulate(SOLVED, 50).max_prefills == 4
    with pytest.raises(FluidgateError, match=r"'mine': parameters.extra: must be a whole number from 1 to 9.*2.5"):
        mine.with_parameters({"extra": 2.5})
    with pytest.raises(FluidgateError, match="Python code"):
        dump_policy(mine)
    plain = find_policy("gate-and-route").with_functions("plain", tabulate=tables_of)
    assert plain.parameters == ()


@given(policy=st.sampled_from(OPEN), data=st.data())
def test_files_keep_every_value(policy: Policy, data: st.DataObject) -> None:
    values = {p.name: data.draw(st.floats(p.low, p.high)) for p in policy.parameters}
    changed = policy.with_parameters(values)
    again = parse_policy(dump_policy(changed), "p.toml")
    assert again.values == values
    assert (again.name, again.base, again.origin, again.tuned) == ("p.toml", policy.name, "user", None)
    assert dump_policy(again) == dump_policy(changed)


@given(text=st.text(max_size=60), values=st.dictionaries(st.text(max_size=5), st.floats()), name=st.text(max_size=9))
def test_a_wrong_file_is_one_line(text: str, values: dict[str, float], name: str) -> None:
    import tomlkit

    for content in (text, tomlkit.dumps({"policy": name, "parameters": values})):
        complaint = refusal(content)
        assert complaint is None or (complaint.startswith("p.toml: ") and "\n" not in complaint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("empty", "[parameters]")),
        ("policy = ", ("line 1", "not TOML")),
        ("schema = 2\npolicy = 'fi-wsp'\n", ("schema", "schema 1")),
        ("schema = 1\n", ("policy: missing", "index-and-pool")),
        ("policy = 3\n", ("policy: must be a text",)),
        ("policy = 'gate-and-rout'\n", ("policy: unknown policy", "'gate-and-route'")),
        ("policy = 'other.toml'\n", ("policy: unknown policy 'other.toml'",)),
        (HEAD + "[parameter]\nmargin = 0.1\n", ("parameter: unknown key", "'parameters'")),
        (HEAD + "parameters = 3\n", ("parameters: must be a table",)),
        (HEAD + "[parameters]\nmargim = 0.1\n", ("parameters.margim", "'margin'")),
        (HEAD + "[parameters]\nspeed = 1\n", ("parameters.speed", "it has: margin")),
        (HEAD + "[parameters]\nmargin = 'a'\n", ("parameters.margin: must be a number",)),
        (HEAD + "[parameters]\nmargin = nan\n", ("parameters.margin: must be a finite number",)),
        (HEAD + "[parameters]\nmargin = 1.5\n", ("parameters.margin", "from 0 to 1", "is 1.5")),
        (HEAD + "[parameters]\nmargin = -0.1\nspeed = 1\n", ("parameters.margin", "and 1 more")),
        ("policy = 'fi-wsp'\n[parameters]\nmargin = 0.1\n", ("parameters.margin", "no parameters")),
        (HEAD + "[tuned]\ngpus = 5\n", ("tuned.scenario: missing",)),
        (HEAD + "[tuned]\nscenario = 'x'\ngpus = 0\n", ("tuned.gpus", "at least 1")),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(FluidgateError) as caught:
        find_policy(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for word in words:
        assert word in message


def test_missing_file() -> None:
    with pytest.raises(FluidgateError, match=r"none\.toml: no such file; give the path of a policy file"):
        find_policy("none.toml")


def test_written_whole_and_never_over_another(tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "p.toml"
    tuned = replace(find_policy("fg-sp").with_parameters({"margin": 0.125}), tuned=RECORD)
    write_policy(tuned, path)
    again = load_policy(path)
    assert (again.values, again.tuned) == ({"margin": 0.125}, RECORD)
    with pytest.raises(FluidgateError, match=r"p\.toml: is there already.*force=True"):
        write_policy(find_policy("fg-sp"), path)
    assert load_policy(path).tuned == RECORD
    write_policy(find_policy("fg-sp"), path, force=True)
    assert load_policy(path).tuned is None
    with pytest.raises(FluidgateError, match=r"ends in \.toml"):
        write_policy(find_policy("fg-sp"), tmp_path / "p.txt")
    with pytest.raises(FluidgateError, match="no folder"):
        write_policy(find_policy("fg-sp"), tmp_path / "none" / "p.toml")


def test_a_file_stands_where_a_name_does(tmp_path: Path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text(HEAD + "[parameters]\nmargin = 1\n[tuned]\nscenario = 'two-class'\ngpus = 6\n", "utf-8")
    options: dict[str, Any] = {"gpus": 6, "horizon": 200.0, "replications": 2}
    result = compare(SCENARIO, ["gate-and-route", str(path)], **options)
    assert [r.policy for r in result.policies] == ["gate-and-route", str(path)]
    wide = simulate(SCENARIO, find_policy("gate-and-route").with_parameters({"margin": 1.0}), **options)
    assert result.policies[1].classes == wide.classes
    assert result.policies[0].classes != wide.classes
    assert not any("tuned" in w for w in result.warnings)
    elsewhere = simulate(SCENARIO, str(path), **options | {"gpus": 7})
    assert "tuned for 'two-class' on 6 GPUs, not for 'two-class' on 7" in elsewhere.warnings[-1]


def test_a_published_policy_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    write_policy(PLACED["splitwise"].with_parameters({"prompt_gpus": 3}), path)
    again = find_any_policy(str(path))
    assert isinstance(again, PlacedPolicy)
    assert again.values == {"prompt_gpus": 3, "pilot": 300, "queue_tokens": 8192}
    assert (again.name, again.base, again.placement) == (str(path), "splitwise", "pools")
    with pytest.raises(FluidgateError, match=r"p\.toml' batches in its own way"):
        find_policy(str(path))
    for value, words in ((2.5, "must be a whole number"), (-1, "from 0 to")):
        assert words in str(refusal(f"policy = 'distserve'\n[parameters]\nprompt_gpus = {value}\n"))
    assert "has no parameters" in str(refusal("policy = 'vllm-lmetric'\n[parameters]\noffset = 1\n"))


def test_schema_of_the_file() -> None:
    from dataclasses import replace

    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = tomllib.loads(dump_policy(replace(find_policy("fg-sp"), tuned=RECORD)))
    validator.validate(good)
    for wrong in ({"policy": 1}, {"speed": 1}, {"schema": 2}, {"parameters": {"margin": "a"}}, {"tuned": {"gpus": 1}}):
        assert not validator.is_valid(good | wrong), wrong
