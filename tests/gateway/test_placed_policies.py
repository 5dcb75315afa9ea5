"""Published policies in the gateway: those that place requests, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.policies import PLACED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(PLACED))
def test_what_is_more_than_a_placement_is_refused(name: str) -> None:
    from fluidgate.gateway.gateway_file import parse_gateway

    text = f"""schema = 1
scenario = "examples/two-class.toml"
policy = "{name}"
[engines]
kind = "vllm"
urls = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
"""
    if name in ("distserve", "splitwise", "edpp", "slai", "wait"):
        with pytest.raises(FluidgateError, match=f"g.toml: policy: .*{name}.* is more than a placement of requests"):
            parse_gateway(text, "g.toml", ROOT)
    else:
        assert parse_gateway(text, "g.toml", ROOT).groups[0].policy is PLACED[name]
