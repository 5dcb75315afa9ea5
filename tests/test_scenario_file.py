from __future__ import annotations

import contextlib
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.model import (
    Arrivals,
    EngineModel,
    Gpu,
    Indicators,
    IterationTime,
    Lengths,
    Pricing,
    RequestClass,
    Scenario,
    Targets,
)
from fluidgate.scenario_file import (
    dump_scenario,
    load_scenario,
    parse_scenario,
    scenario_schema,
    write_scenario,
)

TWO = """\
name = "two-class"

[gpu]
batch_size = 16
chunk_size = 256
alpha = 0.0174
beta = 6.2e-5
gamma = 45.45

[pricing]
scheme = "bundled"
prompt = 0.1
output = 0.2

[[classes]]
name = "batch"
prompt_tokens = 300
output_tokens = 1000
arrival_rate = 0.5
patience_rate = 0.1

[[classes]]
name = "chat"
prompt_tokens = 3000
output_tokens = 400
arrival_rate = 0.25
patience_rate = 0
"""
NUMBERS = "alpha = 0.0174\nbeta = 6.2e-5\ngamma = 45.45\n"
GPU = "[gpu]\nbatch_size = 16\nchunk_size = 256\n" + NUMBERS
CLUSTER = ("[pricing]", "[cluster]\ngpus = 3\n\n[pricing]")
TOTALS = ("\narrival_rate", "\ntotal_arrival_rate")


def changed(*replacements: tuple[str, str], text: str = TWO) -> str:
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return text


def refusal(text: str, source: str = "two.toml", base_dir: str | Path = ".") -> str:
    with pytest.raises(FluidgateError) as caught:
        parse_scenario(text, source, base_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{source}: ")
    return message.removeprefix(f"{source}: ")


def test_a_scenario_per_gpu_is_read() -> None:
    scenario = parse_scenario(TWO)
    assert scenario == Scenario(
        name="two-class",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme="bundled", prompt=0.1, output=0.2),
        classes=(
            RequestClass(name="batch", prompt_tokens=300, output_tokens=1000, arrival_rate=0.5, patience_rate=0.1),
            RequestClass(name="chat", prompt_tokens=3000, output_tokens=400, arrival_rate=0.25, patience_rate=0),
        ),
    )


def test_a_cluster_shares_its_arrival_rates() -> None:
    scenario = parse_scenario(changed(CLUSTER, TOTALS))
    assert scenario.cluster_gpus == 3
    assert [c.arrival_rate for c in scenario.classes] == [0.5 / 3, 0.25 / 3]


def test_a_shipped_profile_stands_for_its_numbers() -> None:
    assert parse_scenario(changed((NUMBERS, 'profile = "a100-40gb/qwen-8b"\n'))) == parse_scenario(TWO)


def test_a_profile_file_is_found_beside_the_scenario_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('name = "lab"\nalpha = 0.01\nbeta = 1e-5\ngamma = 50\n')
    (tmp_path / "two.toml").write_text(changed((NUMBERS, 'profile = "lab.toml"\n')))
    assert load_scenario(tmp_path / "two.toml").gpu.iteration == IterationTime(alpha=0.01, beta=1e-5, gamma=50)


def test_schema_1_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_bytes(b"\xef\xbb\xbf" + ("schema = 1\n" + TWO).replace("\n", "\r\n").encode())
    assert load_scenario(str(file)) == Scenario.load(file) == parse_scenario(TWO)


def test_indicators_are_read() -> None:
    text = TWO + "\n[indicators]\nmax_tpot = 0.0245\nsolo_gap_weight = 2\n"
    assert parse_scenario(text).indicators == Indicators(max_tpot=0.0245, solo_gap_weight=2.0)


def test_arrivals_are_read() -> None:
    assert parse_scenario(TWO + "\n[arrivals]\n").arrivals == Arrivals()
    text = TWO + '\n[arrivals]\nprocess = "gamma"\ncv = 3\n'
    assert parse_scenario(text).arrivals == Arrivals(process="gamma", cv=3.0)
    assert accepts(text)
    text = TWO + '\n[arrivals]\nprocess = "mmpp"\nlevels = [1, 8]\nsojourns = [50, 5.5]\n'
    assert parse_scenario(text).arrivals == Arrivals(process="mmpp", levels=(1.0, 8.0), sojourns=(50.0, 5.5))
    assert accepts(text)
    text = TWO + '\n[arrivals]\nprocess = "daily"\nweights = [1, 0, 2]\n'
    assert parse_scenario(text).arrivals == Arrivals(process="daily", weights=(1.0, 0.0, 2.0), period=86_400.0)
    assert accepts(text)


def test_an_engine_and_targets_are_read() -> None:
    text = changed(("patience_rate = 0\n", "patience_rate = 0\ntpot_target = 0.1\n"))
    text += '\n[engine]\nkv_tokens = 4096\npreemption = "swap"\nswap_seconds = 1e-6\ntransfer_bandwidth = 1e5\n'
    text += "[targets]\nttft = 2\ntpot = 0.05\n"
    scenario = parse_scenario(text)
    engine = EngineModel(kv_tokens=4096, preemption="swap", swap_seconds=1e-6, transfer_bandwidth=1e5)
    assert scenario.engine == engine
    assert scenario.targets == Targets(ttft=2.0, tpot=0.05)
    assert scenario.ttft_targets == (2.0, 2.0)
    assert scenario.tpot_targets == (0.05, 0.1)
    assert parse_scenario(TWO).ttft_targets == (None, None)
    assert accepts(text)


def test_lengths_are_read_and_their_traces_lie_beside_the_file(tmp_path: Path) -> None:
    text = (
        TWO + '\n[lengths]\nprompt = "lognormal"\nprompt_cv = 2\noutput = "empirical"\ntraces = ["a.csv", "/b.csv"]\n'
    )
    (tmp_path / "two.toml").write_text(text)
    assert load_scenario(tmp_path / "two.toml").lengths == Lengths(
        prompt="lognormal", prompt_cv=2.0, output="empirical", traces=(str(tmp_path / "a.csv"), "/b.csv")
    )
    assert accepts(text)
    assert parse_scenario(TWO).lengths == parse_scenario(TWO + "\n[lengths]\n").lengths == Lengths()


@pytest.mark.parametrize(
    ("noun", "fields", "message"),
    [
        (Arrivals, {"cv": 3.0}, "cv must be 1 for poisson arrivals"),
        (Arrivals, {"process": "mmpp", "levels": (1.0,), "sojourns": (1.0,)}, "mmpp needs two levels"),
        (Arrivals, {"process": "mmpp", "levels": (1.0, 2.0), "sojourns": (1.0,)}, "as many sojourns"),
        (Arrivals, {"process": "daily", "weights": (0.0,)}, "daily needs weights, one of them above 0"),
        (Lengths, {"prompt": "lognormal"}, "prompt_cv belongs to lognormal lengths"),
        (Lengths, {"output_cv": 1.0}, "output_cv belongs to lognormal lengths"),
        (EngineModel, {"kv_tokens": 8}, "kv_tokens must hold a block"),
        (EngineModel, {"preemption": "swap"}, "belong to a limited KV memory"),
        (EngineModel, {"swap_seconds": 1.0}, "swap_seconds belongs to preemption by swapping"),
        (EngineModel, {"batching": "single-prefill", "max_batched_tokens": 9}, "max_batched_tokens belongs to"),
        (EngineModel, {"batching": "prefill-first", "async_scheduling": True}, "async_scheduling belongs to"),
    ],
)
def test_nouns_of_the_library_are_checked(noun: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noun(**fields)


def with_arrivals(keys: str) -> list[tuple[str, str]]:
    return [("[pricing]", f"[arrivals]\n{keys}\n[pricing]")]


def with_phases(levels: str, sojourns: str) -> list[tuple[str, str]]:
    return with_arrivals(f'process = "mmpp"\nlevels = {levels}\nsojourns = {sojourns}')


def with_lengths(keys: str) -> list[tuple[str, str]]:
    return [("[pricing]", f"[lengths]\n{keys}\n[pricing]")]


def with_engine(keys: str) -> list[tuple[str, str]]:
    return [("[pricing]", f"[engine]\n{keys}\n[pricing]")]


REFUSED = {
    "unknown batching": (
        with_engine('batching = "token-budgets"'),
        "engine.batching: must be 'single-prefill', 'token-budget', 'prefill-first' or 'last-schedulable', but is "
        "'token-budgets'; did you mean 'token-budget'?",
    ),
    "misspelt engine key": (
        with_engine("kv_token = 100"),
        "engine.kv_token: unknown key; did you mean 'kv_tokens'?",
    ),
    "no KV memory": (with_engine("kv_tokens = 0"), "engine.kv_tokens: must be at least 1, but is 0; give the tokens"),
    "memory below a block": (with_engine("kv_tokens = 8"), "engine.kv_tokens: must hold a block of 16 tokens, but "),
    "block without memory": (with_engine("kv_block = 8"), "engine.kv_block: only with a limited KV memory; remove"),
    "asynchronous prefill first": (
        with_engine('batching = "prefill-first"\nasync_scheduling = true'),
        "engine.async_scheduling: not simulated with prefill-first batching; remove this key, or give token-budget",
    ),
    "caching without memory": (with_engine("kv_caching = true"), "engine.kv_caching: only with a limited"),
    "caching and swap": (
        with_engine('kv_tokens = 64\nkv_caching = true\npreemption = "swap"'),
        "engine.kv_caching: what is swapped out is not read again",
    ),
    "reservation without memory": (with_engine("kv_reservation = 8"), "engine.kv_reservation: only with a limited"),
    "unknown preemption": (
        with_engine('kv_tokens = 99\npreemption = "drop"'),
        "engine.preemption: must be 'recompute' or 'swap', but is 'drop'; give what becomes of the KV",
    ),
    "seconds without swapping": (
        with_engine("kv_tokens = 99\nswap_seconds = 1e-6"),
        'engine.swap_seconds: only with preemption = "swap"; ',
    ),
    "budget below the batch": (
        with_engine('batching = "token-budget"\nmax_batched_tokens = 15'),
        "engine.max_batched_tokens: must be at least the batch size (16), but is 15; raise it, or lower gpu.batch_size",
    ),
    "budget of one prefill": (
        with_engine('batching = "single-prefill"\nmax_batched_tokens = 512'),
        "engine.max_batched_tokens: not with single-prefill batching, which reads gpu.chunk_size tokens; ",
    ),
    "no bandwidth": (
        with_engine("transfer_bandwidth = 0"),
        "engine.transfer_bandwidth: must be greater than 0, but is 0; give the KV tokens per second",
    ),
    "negative latency": (
        with_engine("transfer_latency = -1"),
        "engine.transfer_latency: must be at least 0, but is -1; give the seconds",
    ),
    "target of 0": (
        [("[pricing]", "[targets]\nttft = 0\n[pricing]")],
        "targets.ttft: must be greater than 0, but is 0; give the largest time to first token",
    ),
    "misspelt target": (
        [("patience_rate = 0\n", "patience_rate = 0\nttft_targets = 2\n")],
        "classes[1] ('chat'): ttft_targets: unknown key; did you mean 'ttft_target'?",
    ),
    "unknown process": (
        with_arrivals('process = "gama"\ncv = 3'),
        "arrivals.process: must be 'poisson', 'gamma', 'mmpp' or 'daily', but is 'gama'; did you mean 'gamma'?",
    ),
    "process of a wrong type": (
        with_arrivals("process = 3"),
        "arrivals.process: must be 'poisson', 'gamma', 'mmpp' or 'daily', but is 3",
    ),
    "cv of Poisson gaps": (
        with_arrivals("cv = 3"),
        'arrivals.cv: only with process = "gamma" (Poisson gaps have cv 1); ',
    ),
    "gamma without cv": (with_arrivals('process = "gamma"'), "arrivals.cv: missing; add 'cv = 3.0', "),
    "cv of 0": (with_arrivals('process = "gamma"\ncv = 0'), "arrivals.cv: must be at least 0.001, but is 0; give "),
    "cv too large": (
        with_arrivals('process = "gamma"\ncv = 101'),
        "arrivals.cv: must be at most 100, but is 101; ",
    ),
    "cv in quotes": (with_arrivals('process = "gamma"\ncv = "3"'), "arrivals.cv: must be a number, but is '3'; give "),
    "misspelt cv": (with_arrivals('process = "gamma"\ncvs = 2'), "arrivals.cvs: unknown key; did you mean 'cv'?"),
    "phases of Poisson arrivals": (with_arrivals("levels = [1, 2]"), 'arrivals.levels: only with process = "mmpp"; '),
    "hours of Poisson arrivals": (with_arrivals("weights = [1]"), 'arrivals.weights: only with process = "daily"; '),
    "one phase": (with_phases("[1]", "[1, 2]"), "arrivals.levels: must have at least 2, but has 1; give "),
    "phases without sojourns": (
        with_arrivals('process = "mmpp"\nlevels = [1, 2]'),
        "arrivals.sojourns: missing; add 'sojourns = [50, 5]', ",
    ),
    "a sojourn too many": (with_phases("[1, 2]", "[1, 2, 3]"), "arrivals.sojourns: 2 levels, but 3 sojourns; give "),
    "phases without arrivals": (with_phases("[0, 0.0]", "[1, 2]"), "arrivals.levels: all 0; give "),
    "negative level": (with_phases("[1, -1]", "[1, 2]"), "arrivals.levels[1]: must be at least 0, but is -1; "),
    "no sojourn": (with_phases("[1, 2]", "[0, 2]"), "arrivals.sojourns[0]: must be at least 0.01, but is 0; "),
    "day without weights": (
        with_arrivals('process = "daily"'),
        "arrivals.weights: missing; add 'weights = [1, ",
    ),
    "day without arrivals": (with_arrivals('process = "daily"\nweights = [0]'), "arrivals.weights: all 0; give "),
    "day without end": (
        with_arrivals('process = "daily"\nweights = [1]\nperiod = 0'),
        "arrivals.period: must be at least 0.01, but is 0; ",
    ),
    "unknown length law": (
        with_lengths('output = "log-normal"'),
        "lengths.output: must be 'exponential', 'fixed', 'lognormal' or 'empirical', but is 'log-normal'; did you mean",
    ),
    "lognormal without cv": (
        with_lengths('prompt = "lognormal"'),
        "lengths.prompt_cv: missing; add 'prompt_cv = 1.5', the CV of the prompt lengths",
    ),
    "cv of another law": (with_lengths("output_cv = 2"), 'lengths.output_cv: only with output = "lognormal"; '),
    "traces without need": (with_lengths('traces = ["a.csv"]'), "lengths.traces: only with prompt or output = "),
    "trace for traces": (
        with_lengths('output = "empirical"\ntraces = "a.csv"'),
        "lengths.traces: must be an array, but is 'a.csv'; give the paths of trace files",
    ),
    "misspelt arrivals": ([("[pricing]", "[arrival]\n[pricing]")], "arrival: unknown key; did you mean 'arrivals'?"),
    "arrivals as an array": (
        [("[pricing]", "[[arrivals]]\n[pricing]")],
        "arrivals: must be a table, but is an array",
    ),
    "out of range": (
        [("6.2e-5", "-1")],
        "gpu.beta: must be greater than 0, but is -1; give the seconds that a prompt token adds to a mixed iteration",
    ),
    "misspelt": ([("batch_size", "batchsize")], "gpu.batchsize: unknown key; did you mean 'batch_size'?"),
    "misspelt table": ([("[pricing]", "[prices]")], "prices: unknown key; did you mean 'pricing'?"),
    "unknown key": (
        [("gamma = 45.45", "gamma = 45.45\nzzz = 1")],
        "gpu.zzz: unknown key; remove it (the keys here: batch_size, chunk_size, alpha, beta, gamma)",
    ),
    "unknown top key": ([("[gpu]", "zzz = 1\n[gpu]")], "zzz: unknown key; remove it"),
    "quoted key": ([("[gpu]", '"a b\\n" = 1\n[gpu]')], "'a b\\n': unknown key; remove it"),
    "missing": (
        [("prompt_tokens = 3000\n", "")],
        "classes[1] ('chat'): prompt_tokens: missing; add 'prompt_tokens = 300', the mean prompt length P, tokens",
    ),
    "missing name": ([('name = "chat"\n', "")], "classes[1]: name: missing; add 'name = \"chat\"', "),
    "missing table": ([(GPU, "")], "gpu: missing; add the table [gpu]"),
    "no iteration time": ([(NUMBERS, "")], "gpu.alpha: missing; add 'alpha = 0.0174', "),
    "string for a number": ([("45.45", '"45"')], "gpu.gamma: must be a number, but is '45'; give "),
    "bool for a number": ([("45.45", "true")], "gpu.gamma: must be a number, but is true; give "),
    "date for a number": ([("45.45", "1979-05-27")], "gpu.gamma: must be a number, but is 1979-05-27; "),
    "array for a number": ([("45.45", "[1]")], "gpu.gamma: must be a number, but is an array; "),
    "huge number": (
        [("45.45", "0x" + "f" * 4000)],
        "gpu.gamma: must be a number, but is a very large number",
    ),
    "digits without end": ([("45.45", "1" * 5000)], "not TOML: Exceeds the limit"),
    "bool for a count": ([("16", "true")], "gpu.batch_size: must be a whole number, but is true; give "),
    "fraction for a count": ([("16", "1.5")], "gpu.batch_size: must be a whole number, but is 1.5; give "),
    "count too small": ([("256", "0")], "gpu.chunk_size: must be at least 1, but is 0; give "),
    "count too large": ([("256", "4294967296")], "gpu.chunk_size: must be at most 2147483647, but is "),
    "nan": ([("45.45", "nan")], "gpu.gamma: must be a finite number, but is nan; give "),
    "inf": ([("0.0174", "inf")], "gpu.alpha: must be a finite number, but is inf; give "),
    "-inf": ([("prompt = 0.1", "prompt = -inf")], "pricing.prompt: must be a finite number, but is -inf; "),
    "negative price": ([("0.2", "-0.2")], "pricing.output: must be at least 0, but is -0.2; give "),
    "unknown scheme": (
        [('"bundled"', '"bundle"')],
        "pricing.scheme: must be 'bundled' or 'separate', but is 'bundle'; did you mean 'bundled'?",
    ),
    "scheme of a wrong type": (
        [('"bundled"', "1")],
        "pricing.scheme: must be 'bundled' or 'separate', but is 1",
    ),
    "no mixed iteration": (
        [("0.0174", "-1")],
        "gpu.alpha: alpha + beta * chunk_size must be greater than 0 s and finite, but is -0.984128 s; ",
    ),
    "same names": (
        [('"chat"', '"batch"')],
        "classes[1] ('batch'): name: also the name of classes[0]; give each class its own name",
    ),
    "empty name": ([('"chat"', '""')], "classes[1]: name: must not be empty; give "),
    "number for a name": ([('"two-class"', "2")], "name: must be a text in quotes, but is 2; give "),
    "table for an array": (
        [('[[classes]]\nname = "batch"', '[classes]\nname = "batch"'), (TWO[TWO.rindex("[[") :], "")],
        "classes: must be an array, but is a table; give the classes of requests, each a table [[classes]]",
    ),
    "number for a table": (
        [(GPU, ""), ('name = "two', 'gpu = 3\nname = "two')],
        "gpu: must be a table, but is 3; give the table [gpu]",
    ),
    "other schema": (
        [('name = "two', 'schema = 2\nname = "two')],
        "schema: is 2, but this fluidgate reads schema 1; write 'schema = 1'",
    ),
    "profile and numbers": (
        [("alpha", 'profile = "a100-40gb/qwen-8b"\nalpha')],
        "gpu.alpha: not together with 'profile'; remove 'profile', or alpha, beta and gamma (and 2 more to mend)",
    ),
    "unknown profile": (
        [(NUMBERS, 'profile = "a100-40gb/qwen8b"\n')],
        "gpu.profile: unknown profile 'a100-40gb/qwen8b'; did you mean 'a100-40gb/qwen-8b'? "
        "(list them with 'fluidgate profiles', or give the path of a .toml file)",
    ),
    "no profile file": ([(NUMBERS, 'profile = "no.toml"\n')], "gpu.profile: no.toml: no such file; give "),
    "rate per GPU in a cluster": (
        [CLUSTER],
        "classes[0] ('batch'): arrival_rate: not together with [cluster]; "
        "remove this key and give total_arrival_rate, or remove [cluster] (and 1 more to mend)",
    ),
    "total rate without a cluster": (
        [TOTALS],
        "classes[0] ('batch'): total_arrival_rate: only together with [cluster]; add [cluster] with gpus, "
        "or remove this key and give arrival_rate, requests/s per GPU (and 1 more to mend)",
    ),
    "both rates": (
        [("arrival_rate = 0.25", "arrival_rate = 0.25\ntotal_arrival_rate = 1")],
        "classes[1] ('chat'): total_arrival_rate: only together with [cluster]; ",
    ),
    "no GPUs in the cluster": (
        [CLUSTER, TOTALS, ("gpus = 3", "")],
        "cluster.gpus: missing; add 'gpus = 60', the GPUs that share total_arrival_rate",
    ),
    "two indicators": (
        [("[pricing]", "[indicators]\nmax_tpot = 'x'\ntpot_weight = -1\n[pricing]")],
        "indicators.max_tpot: must be a number, but is 'x'; "
        "give the largest average time per output token, eta_3, s (and 1 more to mend)",
    ),
    "three mistakes": (
        [("6.2e-5", "-1"), ("45.45", "0"), ("3000", "0")],
        "gpu.beta: must be greater than 0, but is -1; "
        "give the seconds that a prompt token adds to a mixed iteration (and 2 more to mend)",
    ),
    "lengths beyond floats": (
        [("= 3000", "= 1e-320")],
        "classes[1] ('chat'): its service rates or prices are no longer numbers; ",
    ),
    "rate beyond floats": (
        [CLUSTER, TOTALS, ("= 0.25", "= 5e-324")],
        "classes[1] ('chat'): total_arrival_rate: too small to share among 3 GPUs; ",
    ),
    "syntax": (
        [("[gpu]", "[gpu")],
        "line 3, column 5: not TOML: Expected ']' at the end of a table declaration",
    ),
    "syntax at the end": ([(TWO, TWO + "x")], "line 28: not TOML: "),
    "key twice": (
        [("gamma", "alpha")],
        "line 8, column 14: not TOML: Cannot overwrite a value; mend this line",
    ),
    "nested without end": ([("[gpu]", "x = " + "[" * 5000)], "not TOML: too deeply nested; "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_one_line_with_key_reason_and_mend(case: str) -> None:
    replacements, start = REFUSED[case]
    assert refusal(changed(*replacements)).startswith(start)


@pytest.mark.parametrize("text", ["", "\n  # nothing\n"])
def test_an_empty_file(text: str) -> None:
    assert refusal(text) == "empty; write a scenario: name, [gpu], [pricing] and [[classes]]"


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


positive = st.floats(min_value=1e-6, max_value=1e6)
weights = st.floats(min_value=0, max_value=1e6)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


durations = st.floats(0.01, 1e6)
phases = st.lists(st.tuples(positive, durations), min_size=2, max_size=3)
arrivals = (
    st.just(Arrivals())
    | st.builds(Arrivals, process=st.just("gamma"), cv=st.floats(0.001, 100))
    | phases.map(lambda p: Arrivals(process="mmpp", levels=[r for r, _ in p], sojourns=[s for _, s in p]))
    | st.builds(Arrivals, process=st.just("daily"), weights=st.lists(positive, min_size=1), period=durations)
)
lengths = (
    st.just(Lengths())
    | st.builds(Lengths, prompt=st.just("lognormal"), prompt_cv=st.floats(1e-3, 100), output=st.just("fixed"))
    | st.builds(Lengths, output=st.just("empirical"), traces=st.lists(st.sampled_from(["a.csv", "b/c.csv"])))
)


engines = (
    st.just(EngineModel())
    | st.builds(EngineModel, batching=st.just("prefill-first"), max_batched_tokens=st.none() | st.integers(1, 10_000))
    | st.builds(
        EngineModel,
        kv_tokens=st.integers(100, 10**6),
        kv_block=st.integers(1, 100),
        kv_reservation=st.integers(0, 100),
        preemption=st.just("swap"),
        swap_seconds=weights,
    )
    | st.builds(EngineModel, transfer_latency=weights, transfer_bandwidth=st.none() | positive)
)


@st.composite
def scenarios(draw: st.DrawFn, gpus: st.SearchStrategy[int | None]) -> Scenario:
    cluster_gpus = draw(gpus)
    classes = tuple(
        RequestClass(
            name=name,
            prompt_tokens=draw(positive),
            output_tokens=draw(positive),
            arrival_rate=draw(positive) / (cluster_gpus or 1),
            patience_rate=draw(weights),
            ttft_target=draw(st.none() | positive),
        )
        for name in draw(st.lists(names, min_size=1, max_size=4, unique=True))
    )
    limits = st.none() | weights
    return Scenario(
        name=draw(names),
        gpu=Gpu(
            batch_size=draw(st.integers(1, 1000)),
            chunk_size=draw(st.integers(1, 10_000)),
            iteration=IterationTime(alpha=draw(weights), beta=draw(positive), gamma=draw(positive)),
        ),
        pricing=Pricing(
            scheme=draw(st.sampled_from(["bundled", "separate"])), prompt=draw(weights), output=draw(weights)
        ),
        classes=classes,
        indicators=Indicators(max_prefill_gap=draw(limits), max_tpot=draw(limits), solo_gap_weight=draw(weights)),
        arrivals=draw(arrivals),
        lengths=draw(lengths),
        engine=draw(engines),
        targets=draw(st.builds(Targets, ttft=st.none() | positive, tpot=st.none() | positive)),
        cluster_gpus=cluster_gpus,
    )


@given(scenarios(gpus=st.none() | st.integers(1, 100_000)))
def test_parsing_a_dumped_scenario_gives_it_back(scenario: Scenario) -> None:
    text = dump_scenario(scenario, {"": "made\nby hand\x07", "gpu": "ours", "classes[0]": "first"})
    assert parse_scenario(text) == scenario
    assert text.startswith("# made\n# by hand?\n\nschema = 1\n")
    jsonschema.validate(tomllib.loads(text), scenario_schema(), jsonschema.Draft202012Validator)


@given(scenarios(gpus=st.integers(1, 1000)), st.integers(1, 1000))
def test_another_number_of_gpus_comes_back_to_the_last_digit(scenario: Scenario, gpus: int) -> None:
    shared = scenario.for_gpus(gpus)
    for found, wanted in zip(parse_scenario(dump_scenario(shared)).classes, shared.classes, strict=True):
        assert math.isclose(found.arrival_rate, wanted.arrival_rate, rel_tol=2**-52)


def test_a_scenario_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = parse_scenario(TWO)
    file = tmp_path / "out.toml"
    write_scenario(scenario, file)
    assert load_scenario(file) == scenario
    before = file.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FluidgateError, match=r"out\.toml: cannot be written \(No space left on device\); "):
        write_scenario(scenario.replace(name="other"), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_where_a_scenario_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match=r"no folder '.*'; make it, or give another path"):
        write_scenario(parse_scenario(TWO), tmp_path / "no" / "out.toml")
    with pytest.raises(FluidgateError, match=r"cannot be written \(Is a directory\)"):
        write_scenario(parse_scenario(TWO), tmp_path)


def accepts(text: str) -> bool:
    return jsonschema.Draft202012Validator(scenario_schema()).is_valid(tomllib.loads(text))


def test_the_json_schema_is_one() -> None:
    schema = scenario_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["schema"] == 1
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_json_schema_accepts_what_is_valid() -> None:
    assert accepts(TWO)
    assert accepts("schema = 1\n" + TWO)
    assert accepts(changed(CLUSTER, TOTALS))
    assert accepts(changed((NUMBERS, 'profile = "a100-40gb/qwen-8b"\n')))
    assert accepts(TWO + "[indicators]\nmax_tpot = 0.03\n")


BEYOND_SCHEMA = {
    *("memory below a block", "block without memory", "reservation without memory", "seconds without swapping"),
    *("caching without memory", "caching and swap", "asynchronous prefill first"),
    *("budget below the batch", "budget of one prefill"),
    *("nan", "inf", "-inf", "no mixed iteration", "same names", "unknown profile", "no profile file"),
    *("a sojourn too many", "phases without arrivals", "day without arrivals"),
    *("lognormal without cv", "cv of another law", "traces without need"),
    *("lengths beyond floats", "rate beyond floats", "syntax", "syntax at the end", "key twice"),
    *("nested without end", "huge number", "digits without end"),
}


@pytest.mark.parametrize("case", sorted(set(REFUSED) - BEYOND_SCHEMA))
def test_the_json_schema_refuses_what_is_not(case: str) -> None:
    assert not accepts(changed(*REFUSED[case][0]))


def test_the_json_schema_refuses_negative_limits() -> None:
    assert not accepts(TWO + "[indicators]\nmax_tpot = -1\n")
