"""A scenario file, and how to change it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.scenario_file import parse_scenario, scenario_schema

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


def accepts(text: str) -> bool:
    return jsonschema.Draft202012Validator(scenario_schema()).is_valid(tomllib.loads(text))
