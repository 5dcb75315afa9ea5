"""The probe: its transformer against plain renderings of the same mathematics, its file, and its errors."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fluidgate.calibration.probe import PRESETS, Shape, preset, probe
from fluidgate.cli.app import app
from fluidgate.errors import FluidgateError

SMALL = Shape("small", 3, 32, 6, 2, 8, 48, 60)
QUICK: dict[str, Any] = {"context": 20, "dtype": "float32", "device": "cpu", "warmup": 1, "repeats": 2, "threads": 1}
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed (fluidgate[probe])")


@pytest.fixture
def lab() -> Iterator[Any]:
    """PyTorch and the probe's parts, on one thread: `lab.model(...)` makes weights and an empty cache."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (fluidgate[probe])")
    from fluidgate.calibration.probe import batch, bench, memory, transformer, weights
    from fluidgate.calibration.probe.cache import ContiguousCache, PagedCache

    cpu = torch.device("cpu")

    def make_weights(shape: Shape) -> Any:
        return weights.random_weights(shape, torch.float64, cpu, torch.Generator().manual_seed(1))

    def make_cache(shape: Shape, kind: str, rows: int = 4, tokens: int = 50) -> Any:
        generator = torch.Generator().manual_seed(2)
        if kind == "paged":
            return PagedCache(shape, [tokens] * rows, torch.float64, generator, block_size=4)
        return ContiguousCache(shape, [tokens] * rows, torch.float64, generator)

    def step(shape: Shape, made: Any, cache: Any, **requests: Any) -> Any:
        return transformer.logits(shape, made, batch.make_batch(cache, torch.float64, **requests), cache)

    with bench.cpu_threads(1):
        yield SimpleNamespace(
            torch=torch, cpu=cpu, transformer=transformer, weights=weights, memory=memory, bench=bench, step=step,
            make_weights=make_weights, make_cache=make_cache,
        )  # fmt: skip


def words(count: int, seed: int = 0) -> list[int]:
    return [(7 * seed + 11 * k + k * k) % SMALL.vocabulary for k in range(count)]


def plain_logits(torch: Any, shape: Shape, weights: Any, prompt: list[int]) -> Any:
    """The last token's logits, written out head by head without a cache: an independent rendering."""

    def norm(x: Any, weight: Any) -> Any:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + shape.norm_epsilon) * weight

    def turn(x: Any) -> Any:
        half = shape.head_dim // 2
        out = x.clone()
        for place in range(len(prompt)):
            for k in range(half):
                angle = place * shape.rotary_base ** (-2 * k / shape.head_dim)
                a, b = x[place, k], x[place, k + half]
                out[place, k] = a * math.cos(angle) - b * math.sin(angle)
                out[place, k + half] = b * math.cos(angle) + a * math.sin(angle)
        return out

    d, group = shape.head_dim, shape.heads // shape.kv_heads
    hidden = weights.embedding[prompt]
    later = torch.triu(torch.ones(len(prompt), len(prompt), dtype=torch.bool), 1)
    for layer in weights.layers:
        x = norm(hidden, layer.attention_norm) @ layer.qkv.T
        heads = []
        for head in range(shape.heads):
            query = x[:, head * d : (head + 1) * d]
            at = (shape.heads + head // group) * d
            key, value = x[:, at : at + d], x[:, at + shape.kv_heads * d : at + (shape.kv_heads + 1) * d]
            if shape.qk_norm:
                query, key = norm(query, layer.query_norm), norm(key, layer.key_norm)
            scores = turn(query) @ turn(key).T / math.sqrt(d)
            heads.append(torch.softmax(scores.masked_fill(later, -math.inf), -1) @ value)
        hidden = hidden + torch.cat(heads, -1) @ layer.output.T
        gate, up = (norm(hidden, layer.feed_forward_norm) @ layer.gate_up.T).split(shape.feed_forward, -1)
        hidden = hidden + (gate / (1 + torch.exp(-gate)) * up) @ layer.down.T
    return norm(hidden[-1], weights.norm) @ weights.head.T


def close(lab: Any, one: Any, other: Any) -> None:
    lab.torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_logits_equal_a_plain_rendering(lab: Any, cache: str, qk_norm: bool) -> None:
    shape = replace(SMALL, qk_norm=qk_norm)
    weights, prompt = lab.make_weights(shape), words(13)
    got = lab.step(shape, weights, lab.make_cache(shape, cache), chunk=prompt, chunk_row=2)
    close(lab, got[0], plain_logits(lab.torch, shape, weights, prompt))


def test_paged_and_contiguous_caches_give_the_same_logits(lab: Any) -> None:
    weights = lab.make_weights(SMALL)
    got = []
    for kind in ("paged", "contiguous"):
        cache = lab.make_cache(SMALL, kind)
        for row in range(3):
            lab.step(SMALL, weights, cache, chunk=words(9 + row, row), chunk_row=row)
        got.append(
            lab.step(SMALL, weights, cache, decodes=[(5, 9), (6, 10)], chunk=[3, 4], chunk_row=2, chunk_start=11)
        )
    assert got[0].shape == (3, SMALL.vocabulary)
    close(lab, *got)


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
@pytest.mark.parametrize("chunk", [1, 4, 5, 16])
def test_a_prompt_in_chunks_gives_the_logits_of_the_whole(lab: Any, cache: str, chunk: int) -> None:
    weights, prompt = lab.make_weights(SMALL), words(23)
    whole = lab.step(SMALL, weights, lab.make_cache(SMALL, cache), chunk=prompt)
    kept = lab.make_cache(SMALL, cache)
    for start in range(0, len(prompt), chunk):
        part = lab.step(SMALL, weights, kept, chunk=prompt[start : start + chunk], chunk_start=start)
    close(lab, part, whole)


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
@pytest.mark.parametrize("lengths", [(8, 8, 8), (3, 17, 9)])
def test_each_request_of_a_mixed_iteration_is_as_alone(lab: Any, cache: str, lengths: tuple[int, ...]) -> None:
    weights, kept = lab.make_weights(SMALL), lab.make_cache(SMALL, cache)
    for row, length in enumerate((*lengths, 10)):
        lab.step(SMALL, weights, kept, chunk=words(length, row), chunk_row=row)
    prefill = {"chunk": words(6, 9), "chunk_row": 3, "chunk_start": 10}
    alone = [lab.step(SMALL, weights, kept, decodes=[(row, n)], first_row=row) for row, n in enumerate(lengths)]
    alone.append(lab.step(SMALL, weights, kept, **prefill))
    together = lab.step(SMALL, weights, kept, decodes=list(enumerate(lengths)), **prefill)
    close(lab, together, lab.torch.cat(alone))


def test_the_last_row_of_a_contiguous_cache_alone_may_be_longer(lab: Any) -> None:
    from fluidgate.calibration.probe.cache import ContiguousCache

    weights, torch = lab.make_weights(SMALL), lab.torch
    kept = ContiguousCache(SMALL, [10, 10, 30], torch.float64, torch.Generator().manual_seed(2))
    assert len(kept.keys[0]) == 50
    for row, length in enumerate((9, 7, 24)):
        lab.step(SMALL, weights, kept, chunk=words(length, row), chunk_row=row)
    got = lab.step(SMALL, weights, kept, decodes=[(1, 9), (2, 7)], chunk=words(6, 9), chunk_row=2, chunk_start=24)
    for row, prompt in enumerate(([*words(9), 1], [*words(7, 1), 2], [*words(24, 2), *words(6, 9)])):
        close(lab, got[row], plain_logits(torch, SMALL, weights, prompt))


def test_a_decode_continues_its_prompt(lab: Any) -> None:
    weights, kept, prompt = lab.make_weights(SMALL), lab.make_cache(SMALL, "paged"), words(12)
    lab.step(SMALL, weights, kept, chunk=prompt[:-1], chunk_row=1)
    got = lab.step(SMALL, weights, kept, decodes=[(prompt[-1], 11)], first_row=1)
    close(lab, got[0], plain_logits(lab.torch, SMALL, weights, prompt))


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 6), (6, 2), (6, 1)])
def test_grouped_attention_equals_repeated_keys(lab: Any, heads: int, kv_heads: int) -> None:
    torch = lab.torch
    draw = torch.Generator().manual_seed(0)

    def random(*size: int) -> Any:
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    queries, keys, values = random(5, heads, 8), random(5, 11, kv_heads, 8), random(5, 11, kv_heads, 8)
    got = lab.transformer.attend_decodes(queries, keys, values, None)
    repeated = [each.repeat_interleave(heads // kv_heads, dim=2) for each in (keys, values)]
    shares = torch.einsum("rhd,rlhd->rhl", queries, repeated[0]).div(math.sqrt(8)).softmax(-1)
    torch.testing.assert_close(got, torch.einsum("rhl,rlhd->rhd", shares, repeated[1]))

    got = lab.transformer.attend_chunk(queries, keys[:1], values[:1])
    later = torch.arange(11) > torch.arange(6, 11)[:, None]
    scores = torch.einsum("chd,lhd->hcl", queries, repeated[0][0]).div(math.sqrt(8)).masked_fill(later, -math.inf)
    torch.testing.assert_close(got, torch.einsum("hcl,lhd->chd", scores.softmax(-1), repeated[1][0]))


@pytest.mark.parametrize(("name", "published"), [("llama-3.1-8b", 8_030_261_248), ("qwen3-8b", 8_190_735_360)])
def test_parameters_of_the_presets_are_the_published_ones(lab: Any, name: str, published: int) -> None:
    assert lab.weights.parameter_count(preset(name)) == published


def test_shared_layers_take_the_memory_of_one(lab: Any) -> None:
    count = lab.weights.parameter_count
    assert count(SMALL, share_layers=True) == count(replace(SMALL, layers=1))


@needs_torch
@pytest.mark.parametrize("cache", ["paged", "contiguous"])
def test_a_probe_times_every_case(cache: str) -> None:
    seen: list[tuple[int, int]] = []
    made = probe(
        SMALL, batch_sizes=(4, 1, 4), chunk_sizes=(8, 3), cache=cache, progress=lambda *done: seen.append(done), **QUICK
    )
    cases = [(each.case.requests, each.case.decodes, each.case.chunk_size) for each in made.measurements]
    assert cases == [(1, 1, 0), (4, 4, 0), (1, 0, 3), (4, 3, 3), (1, 0, 8), (4, 3, 8)]
    assert all(len(each.seconds) == 2 and min(each.seconds) > 0 for each in made.measurements)
    assert seen == [(done, 12) for done in range(13)]


@needs_torch
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_every_dtype_runs(dtype: str) -> None:
    made = probe(SMALL, batch_sizes=(2,), chunk_sizes=(4,), **QUICK | {"dtype": dtype})
    assert len(made.measurements) == 2


def test_the_seed_fixes_weights_cache_and_tokens(lab: Any) -> None:
    def next_tokens(seed: int) -> list[int]:
        from fluidgate.calibration.probe.settings import Case, Settings

        settings = Settings(
            SMALL,
            (4,),
            (8,),
            20,
            10,
            "paged",
            4,
            "float32",
            "cpu",
            1,
            1,
            seed,
            1,
            share_layers=False,
            cuda_graphs=False,
        )
        bench = lab.bench.Bench(settings)
        return bench.step(Case(4, 8))().tolist()

    assert next_tokens(3) == next_tokens(3) != next_tokens(4)


@needs_torch
def test_the_measurement_file(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    ran = run("-o", path, "--batch-sizes", "2,1", "--chunk-sizes", "4", "--layers", "2")
    assert ran.exit_code == 0, ran.output
    assert "tiny layers=2" in ran.output
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    numbers = [(row["batch_size"], row["chunk_size"], row["repeat"], row["requests"]) for row in rows]
    assert numbers == [
        (decodes, chunk, repeat, requests)
        for decodes, chunk, requests in (("1", "0", "1"), ("2", "0", "2"), ("0", "4", "1"), ("1", "4", "2"))
        for repeat in "012"
    ]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert {(row["context"], row["chunk_context"], row["dtype"], row["model"], row["cache"]) for row in rows} == {
        ("16", "8", "float32", "tiny layers=2", "paged 16")
    }
    assert [each.name for each in tmp_path.iterdir()] == ["m.csv"]


@needs_torch
def test_json_on_standard_output_alone() -> None:
    ran = run("--batch-sizes", "2", "--chunk-sizes", "none", "--json")
    made = json.loads(ran.stdout)
    assert ran.stderr == ""
    assert made["schema"] == 1
    (only,) = made["measurements"]
    assert (only["requests"], only["batch_size"], only["chunk_size"], len(only["seconds"])) == (2, 2, 0, 3)
    assert sorted(only["seconds"])[1] == only["median_seconds"]


@needs_torch
def test_an_interrupt_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluidgate.calibration.probe import timing

    calls = iter(range(5))

    def interrupted(step: Any) -> float:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return 1.0

    path = tmp_path / "m.csv"
    path.write_text("before", "utf-8")
    monkeypatch.setattr(timing, "_timed_on_cpu", interrupted)
    assert run("-o", path, "--batch-sizes", "2").exit_code != 0
    assert path.read_text("utf-8") == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["m.csv"]


def test_without_torch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal() == "probe: PyTorch is not installed; run pip install 'fluidgate[probe]'"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--batch-sizes", "1,x"], "'x' is no whole number; give sizes such as 1,8,16"),
        (["--batch-sizes", "1,,2"], "'' is no whole number"),
        (["--batch-sizes", "none"], "--batch-sizes: is empty; give sizes such as 1,8,16"),
        (["--batch-sizes", "0,4"], "--batch-sizes: is 0; give a whole number from 1 to"),
        (["--chunk-sizes", "0"], "--chunk-sizes: is 0; give a whole number from 1 to"),
        (["--context", "-1"], "--context: is -1; give a whole number from 0 to"),
        (["--repeats", "0"], "--repeats: is 0; give a whole number from 1 to"),
        (["--block-size", "0"], "--block-size: is 0;"),
        (["--threads", "0"], "--threads: is 0;"),
        (["--seed", "-1"], "--seed: is -1;"),
        (["--layers", "0"], "--layers: is 0;"),
        (["--heads", "6", "--kv-heads", "4"], "--kv-heads: 4 does not divide 6 heads; give a divisor of 6"),
        (["--head-dim", "33"], "--head-dim: is 33; the rotary embedding needs an even number"),
        (["--dtype", "bfloat"], "--dtype: unknown 'bfloat'; did you mean 'bfloat16'?"),
        (["--device", "tpu"], "--device: unknown 'tpu'; "),
        (["--cache", "pages"], "--cache: unknown 'pages'; did you mean 'paged'?"),
        (["--preset", "llama-3-8b"], "--preset: unknown 'llama-3-8b'; did you mean 'llama-3.1-8b'?"),
        (["-o", "no/such/folder/m.csv"], "no folder 'no/such/folder'"),
    ],
)  # fmt: skip
def test_bad_options_end_in_one_line(arguments: list[str], expected: str) -> None:
    assert expected in refusal(*arguments)


def test_cuda_is_refused_where_there_is_none(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.torch.cuda, "is_available", lambda: False)
    assert refusal("--device", "cuda").startswith("--device: PyTorch finds no CUDA device; give --device cpu")
    assert refusal("--cuda-graphs", "--device", "auto").startswith("--cuda-graphs: there are none on the CPU;")


def test_too_little_memory_says_what_would_fit(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.memory, "free_bytes", lambda device: 20e9)
    line = refusal("--preset", "llama-3.1-8b", "--dtype", "bfloat16", "--batch-sizes", "1,8,64", "--context", "2048")
    assert "needs 34.1 GB (16.1 GB of weights, 17.3 GB of keys and values" in line
    assert "but 19.9 GB can be had on cpu; what would fit: --batch-sizes up to 8 or --layers 17" in line
    monkeypatch.setattr(lab.memory, "free_bytes", lambda device: 0.2e9)
    assert refusal("--preset", "llama-3.1-8b").endswith("what would fit: take a smaller shape or less context")


def test_memory_that_runs_out_ends_in_one_line(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        raise lab.torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(lab.bench, "random_weights", failing)
    assert refusal().startswith("probe: memory ran out; take smaller --batch-sizes")


def test_the_command_names_every_preset() -> None:
    text = CliRunner().invoke(app, ["probe", "--help"]).output
    assert all(name in text for name in PRESETS)


def run(*arguments: object) -> Result:
    """`fluidgate probe` on the tiny shape, quickly; later arguments win."""
    quick = ("--preset=tiny", "--context=16", "--dtype=float32", "--device=cpu", "--threads=1", "--repeats=3")
    return CliRunner().invoke(app, ["probe", *quick, *(str(argument) for argument in arguments)])


def refusal(*arguments: object) -> str:
    """The one line with which the command refuses."""
    ran = run(*arguments)
    assert ran.exit_code != 0
    line = str(ran.exception) if isinstance(ran.exception, FluidgateError) else ran.stderr.splitlines()[-1]
    assert "\n" not in line
    return line
