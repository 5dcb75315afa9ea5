"""Labelled data and the laws of its lengths."""

from __future__ import annotations

import csv
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluidgate.errors import FluidgateError
from fluidgate.workloads import classes_of, divergence, read_trace
from fluidgate.workloads.labelled import Labelled, read_labelled
from fluidgate.workloads.length_laws import length_laws

DOLLY = [
    {"instruction": "Name a fruit", "context": "", "response": "An apple", "category": "open_qa"},
    {"instruction": "Sum it up", "context": "Some long text", "response": "Short", "category": "summarization"},
]


def jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records), "utf-8")
    return path


def labelled(**samples: Any) -> Labelled:
    names = np.concatenate([np.full(len(s), name, dtype=object) for name, s in samples.items()])
    output = np.concatenate(list(samples.values()))
    return Labelled(2.0 * output, output, names, "tokens", "made up")


def test_dolly_is_read_as_it_comes(tmp_path: Path) -> None:
    found = read_labelled(jsonl(tmp_path / "dolly.jsonl", DOLLY))
    assert found.prompt.tolist() == [12, 9 + 14]
    assert found.output.tolist() == [8, 5]
    assert found.category.tolist() == ["open_qa", "summarization"]
    assert (found.unit, found.source, found.categories) == ("characters", "dolly.jsonl", ["open_qa", "summarization"])


def test_texts_are_measured_as_asked(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", DOLLY)
    words = read_labelled(path, tokenizer="words")
    assert (words.prompt.tolist(), words.output.tolist(), words.unit) == ([3, 6], [2, 1], "words")
    tokens = read_labelled(path, tokenizer=lambda text: text.split("p"))
    assert (tokens.output.tolist(), tokens.unit) == ([3, 1], "tokens")
    assert read_labelled(path, tokenizer=lambda text: 7).output.tolist() == [7, 7]


def test_a_tokenizer_file_needs_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tokenizer = jsonl(tmp_path / "d.jsonl", DOLLY), tmp_path / "tokenizer.json"
    with pytest.raises(FluidgateError, match=r"tokenizer\.json: no such file"):
        read_labelled(path, tokenizer=tokenizer)
    tokenizer.write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(FluidgateError, match="needs the package 'tokenizers'; install it with pip install tokenizers"):
        read_labelled(path, tokenizer=str(tokenizer))


def test_a_tokenizer_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the package, which is not among fluidgate's dependencies."""

    class Tokenizer:
        @staticmethod
        def from_file(path: str) -> Tokenizer:
            if Path(path).read_text() != "good":
                raise Exception("EOF while parsing")
            return Tokenizer()

        def encode(self, text: str, add_special_tokens: bool) -> Any:
            assert not add_special_tokens
            return types.SimpleNamespace(ids=text.split())

    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=Tokenizer))
    path, tokenizer = jsonl(tmp_path / "d.jsonl", DOLLY), tmp_path / "tokenizer.json"
    tokenizer.write_text("good")
    assert read_labelled(path, tokenizer=tokenizer).output.tolist() == [2, 1]
    tokenizer.write_text("bad")
    with pytest.raises(FluidgateError, match=r"not a tokenizer\.json \(EOF while parsing\)"):
        read_labelled(path, tokenizer=tokenizer)


def test_csv_with_texts_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "answer", "category"])
        writer.writerows([["one\ntwo", 'so "quoted", yes', "a"], ["3", "4", "b"], ["x", "y", "a"]])
    found = read_labelled(path)
    assert (found.prompt.tolist(), found.output.tolist()) == ([7, 1, 1], [16, 1, 1])
    assert found.unit == "characters"


def test_lengths_and_further_names(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("ask,reply,kind\n10,20,a\n\n30.5,40,b\n")
    found = read_labelled(path, prompt="ask", answer="reply", category="kind")
    assert (found.prompt.tolist(), found.output.tolist(), found.unit) == ([10, 30.5], [20, 40], "as given")
    both = read_labelled(path, prompt=["ask", "reply"], answer="reply")
    assert both.prompt.tolist() == [30, 70.5]
    assert both.categories == ["all"]
    digits = tmp_path / "digits.csv"
    digits.write_text("prompt,answer\n123,4567\n")
    assert read_labelled(digits, tokenizer="characters").output.tolist() == [4]


def test_empty_answers(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", [*DOLLY, DOLLY[0] | {"response": ""}])
    with pytest.raises(FluidgateError, match=r"line 3: response: empty; .* skip_empty"):
        read_labelled(path)
    found = read_labelled(path, skip_empty=True)
    assert (len(found), found.empty) == (2, 1)


GOOD = '{"prompt": 3, "answer": 4, "category": "a"}\n'
TEXTS = '{"prompt": "p", "answer": "q"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; give JSONL or CSV"),
        ("prompt,answer\n", "a header without records"),
        (GOOD + "{", "line 2: not JSON"),
        (GOOD + "[1]", "line 2: must be an object, but is an array"),
        ("[{}]", "line 1: must be an object"),
        ('{"answer": 4}', "line 1: no prompt among answer; name its key with prompt="),
        ('{"prompt": 4}', "line 1: no answer among prompt; name its key with answer="),
        (GOOD + '{"prompt": 3, "category": "a"}', "line 2: answer: missing; add it"),
        (GOOD + '{"prompt": "x", "answer": 4, "category": "a"}', "line 2: prompt: must be a length"),
        (GOOD + '{"prompt": -1, "answer": 4, "category": "a"}', "line 2: prompt: must be a length of at least 0"),
        (GOOD + '{"prompt": 1e999, "answer": 4, "category": "a"}', "line 2: prompt: must be a length of at least 0"),
        (GOOD + '{"prompt": NaN, "answer": 4, "category": "a"}', "line 2: prompt: must be a length of at least 0"),
        (GOOD + '{"prompt": 3, "answer": 4}', "line 2: category: missing"),
        (GOOD + '{"prompt": 3, "answer": 4, "category": null}', "line 2: category: must be a name"),
        (TEXTS + '{"prompt": 1, "answer": "q"}', r"line 2: prompt: must be a text \(as on line 1\), but is 1"),
        ('{"prompt": "p", "answer": 4}', "line 1: some of prompt, answer are texts and some lengths"),
        ('{"prompt": null, "answer": 4}', "line 1: prompt: must be a length of at least 0, but is None"),
        ("prompt,answer\n1,2\n\n1,2,3\n", "line 4: 3 fields where the header has 2; quote texts"),
        ("prompt,answer\n1,2\n1,\n", "line 3: answer: must be a length"),
        ('prompt,answer\n1,"2\n', "line 2: not CSV"),
        ("prompt,answer\n1,0\n", "line 2: answer: empty"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.data"
    path.write_text(text)
    with pytest.raises(FluidgateError, match=message) as error:
        read_labelled(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_misspelt_key(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", DOLLY)
    with pytest.raises(FluidgateError, match=r"line 1: no 'respnse'; did you mean 'response'\?"):
        read_labelled(path, answer="respnse")
    with pytest.raises(FluidgateError, match="no such file"):
        read_labelled(tmp_path / "none.jsonl")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "d"
    path.write_bytes(("prompt,answer\n" + text).encode("utf-8", "replace"))
    try:
        assert len(read_labelled(path)) > 0
    except FluidgateError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_laws_of_known_samples() -> None:
    random = np.random.default_rng(1)
    laws = length_laws(
        labelled(
            exponential=random.exponential(300.0, 5000),
            lognormal=random.lognormal(5.0, 0.8, 5000),
            gamma=random.gamma(4.0, 50.0, 5000),
        )
    )
    assert [law.name for law in laws.categories] == ["exponential", "gamma", "lognormal"]
    exponential = laws["exponential"]
    assert exponential.kl < 0.005
    assert exponential.ks < 0.02
    assert exponential.cv == pytest.approx(1, abs=0.05)
    assert exponential.exponential.parameters["mean"] == pytest.approx(exponential.mean_output)
    assert exponential.mean_prompt == pytest.approx(2 * exponential.mean_output)
    assert laws["lognormal"].best.law == "lognormal"
    assert laws["lognormal"].best.parameters == pytest.approx({"mu": 5.0, "sigma": 0.8}, abs=0.05)
    assert laws["gamma"].best.law == "gamma"
    assert laws["gamma"].best.parameters == pytest.approx({"shape": 4.0, "scale": 50.0}, rel=0.05)
    for name in ("lognormal", "gamma"):
        assert laws[name].kl > 20 * exponential.kl
        assert laws[name].ks > 5 * exponential.ks
    assert laws["gamma"].kl == divergence(laws["gamma"].output)


def test_fits_are_maxima_of_the_likelihood() -> None:
    law = length_laws(labelled(a=np.random.default_rng(3).gamma(2.0, 10.0, 500))).categories[0]
    for fit in law.fits:
        assert fit.log_likelihood == pytest.approx(float(np.log(fit.density(law.output)).sum()))
        assert fit.aic == pytest.approx(2 * len(fit.parameters) - 2 * fit.log_likelihood)
        for name, value in fit.parameters.items():
            for factor in (0.98, 1.02):
                moved = type(fit)(fit.law, fit.parameters | {name: value * factor}, 0.0, 0.0)
                assert np.log(moved.density(law.output)).sum() < fit.log_likelihood


def test_the_distance_is_the_largest_gap_between_distribution_functions() -> None:
    law = length_laws(labelled(a=np.array([1.0, 2.0, 6.0]))).categories[0]
    model = 1 - law.exponential.survival(np.array([1.0, 2.0, 6.0]))
    assert law.ks == pytest.approx(max(np.max(np.arange(1, 4) / 3 - model), np.max(model - np.arange(3) / 3)))


def test_one_length_throughout() -> None:
    laws = length_laws(labelled(a=np.full(30, 7.0), b=np.array([5.0])))
    assert [len(law.fits) for law in laws.categories] == [1, 1]
    assert laws["a"].best.law == "exponential"
    json.loads(laws.to_json())


def test_traces_do_as_well(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    rows = [f"{k},{random.integers(1, 99)},{random.integers(1, 99)},{'ab'[k % 2]}" for k in range(60)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["arrival_time,prompt_tokens,output_tokens,class", *rows]))
    trace = read_trace(path)
    by_label, by_class = length_laws(trace), length_laws(classes_of([trace]), source="t.csv")
    assert [law.name for law in by_label.categories] == ["a", "b"]
    assert by_label.to_dict() == by_class.to_dict()
    assert (by_label.unit, by_label.source) == ("tokens", "t.csv")


def test_records() -> None:
    laws = length_laws(labelled(a=np.arange(1.0, 50.0), b=np.full(3, 2.0)))
    record = json.loads(laws.to_json())
    assert (record["schema"], record["unit"], len(record["categories"])) == (1, "tokens", 2)
    assert [fit["law"] for fit in record["categories"][0]["fits"]] == ["exponential", "lognormal", "gamma"]
    frame = laws.to_dataframe()
    assert frame["count"].tolist() == [49, 3]
    assert frame["aic gamma"].isna().tolist() == [False, True]
    with pytest.raises(FluidgateError, match="no category 'c'; there are a, b"):
        laws["c"]
    with pytest.raises(FluidgateError, match="no requests"):
        length_laws([])
