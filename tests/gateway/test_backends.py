"""The engines as a whole, and the checks of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.gateway.backends import Backends
from fluidgate.gateway.engine_checks import check_again, check_all
from fluidgate.gateway.engines import Handover
from tests.gateway.asynchronous import asynchronous
from tests.gateway.fakes import FakeAdapter


def three(**options: object) -> tuple[list[FakeAdapter], Backends]:
    adapters = [FakeAdapter(f"http://{name}", models=("m", name), context=100 + k) for k, name in enumerate("abc")]
    return adapters, Backends(adapters, batch_size=4, **options)  # type: ignore[arg-type]


@asynchronous
async def test_the_model_is_the_one_that_all_serve() -> None:
    adapters, backends = three()
    adapters[0].facts = None
    await check_all(backends, "file", transfer=True)
    assert backends.models == ("m",)
    assert backends.context_length == 101, "of those that answer"
    assert backends.facts[0] is None


@asynchronous
async def test_what_a_gateway_does_not_start_with() -> None:
    adapters, backends = three(model="b")
    with pytest.raises(FluidgateError, match=r"file: engine http://a serves m, a, not b; let all engines serve one"):
        await check_all(backends, "file", transfer=False)
    adapters, backends = three()
    adapters[2].pair_problem = "lost"
    await check_all(backends, "file", transfer=False)
    with pytest.raises(FluidgateError, match="KV does not move from http://c to http://a: lost"):
        await check_all(backends, "file", transfer=True)
    adapters, backends = three()
    for adapter in adapters:
        adapter.facts = None
    with pytest.raises(FluidgateError, match=r"no engine answers \(http://a: away\)"):
        await check_all(backends, "file", transfer=False)


@asynchronous
async def test_one_that_comes_back_is_what_it_was_or_is_not_used() -> None:
    adapters, backends = three(model="m")
    facts = adapters[0].facts
    assert facts is not None
    adapters[0].facts = replace(facts, models=())
    assert await check_again(backends, 0) == "it serves no model, not m"
    adapters[0].facts = None
    assert await check_again(backends, 0) == "http://a: away"
    adapters[0].facts = facts
    assert await check_again(backends, 0) == ""
    assert backends.facts[0] == facts


@asynchronous
async def test_kv_that_nobody_fetches_is_released_before_the_end() -> None:
    adapters, backends = three()
    backends.release_later(1, Handover("http://b", 0.0))
    await backends.close()
    assert len(adapters[1].released) == 1
    assert (backends.url(1), backends.url(-1)) == ("http://b", None)
