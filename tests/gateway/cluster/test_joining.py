"""The engines as a whole, and the checks of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.gateway.cluster import joining
from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.joining import Joining
from fluidgate.gateway.engines import Facts, Handover
from tests.gateway.asynchronous import asynchronous
from tests.gateway.fakes import FakeAdapter


def three(**options: object) -> tuple[list[FakeAdapter], Backends]:
    adapters = [FakeAdapter(f"http://{name}", models=("m", name), context=100 + k) for k, name in enumerate("abc")]
    return adapters, Backends(adapters, batch_size=4, **options)  # type: ignore[arg-type]


async def start(backends: Backends, *, transfer: bool = True) -> None:
    await Joining(backends, "file", transfer=transfer).first(patient=False)
    for engine in backends:
        engine.answers = engine.facts is not None
    backends.note_models()


@asynchronous
async def test_a_request_goes_to_the_engines_that_have_its_model() -> None:
    adapters, backends = three()
    adapters[0].facts = None
    await start(backends)
    assert backends.base == ("m",)
    assert backends.models == ("m", "b", "c"), "what only some serve may be asked for too"
    assert backends.context_length == 101, "of those that answer"
    assert backends[0].facts is None
    assert backends.only("m") is None
    assert backends.only("b") == [backends[1]]
    assert backends.only("a") == []


@asynchronous
async def test_with_a_model_in_the_file_adapters_of_it_may_be_asked_for_too() -> None:
    adapters, backends = three(model="m")
    facts = adapters[1].facts
    assert facts is not None
    adapters[1].facts = replace(facts, models=("m", "x", "lora"), adapters=("lora",))
    await start(backends)
    assert backends.models == ("m", "lora")


@asynchronous
async def test_what_a_gateway_does_not_start_with() -> None:
    adapters, backends = three(model="b")
    with pytest.raises(FluidgateError, match=r"file: engine http://a serves m, a, not b; let all engines of a group"):
        await start(backends, transfer=False)
    adapters, backends = three()
    adapters[2].pair_problem = "lost"
    await start(backends, transfer=False)
    with pytest.raises(FluidgateError, match="KV does not move from http://c to http://a: lost"):
        await start(backends)
    adapters, backends = three()
    for adapter in adapters:
        adapter.facts = None
    with pytest.raises(FluidgateError, match=r"no engine is fit: http://[abc]: away"):
        await start(backends)


@asynchronous
async def test_one_that_takes_its_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "FIRST_SECONDS", 0.01)
    adapters, backends = three()

    async def never() -> Facts:
        await asyncio.sleep(3600.0)
        raise AssertionError

    adapters[1].check = never  # type: ignore[method-assign]
    await start(backends)
    assert [engine.facts is not None for engine in backends] == [True, False, True]


@asynchronous
async def test_what_one_says_is_told_while_another_keeps_silent(caplog: pytest.LogCaptureFixture) -> None:
    adapters, backends = three()
    adapters[0].facts = None
    answers = asyncio.Event()
    check = adapters[2].check

    async def slow() -> Facts:
        await answers.wait()
        return await check()

    adapters[2].check = slow  # type: ignore[method-assign]
    with caplog.at_level("INFO", "fluidgate.gateway"):
        asking = asyncio.create_task(Joining(backends, "file", transfer=False).first(patient=True))
        while not any("http://b answers" in line for line in caplog.messages):
            await asyncio.sleep(0.001)
        assert "engine http://a: away" in caplog.messages
        answers.set()
        await asking
    assert sum("answers and serves" in line for line in caplog.messages) == 2


@pytest.mark.parametrize(
    ("reasons", "end"),
    [
        (["r"], "http://a: r"),
        (["r", "r", "r"], "http://a: r (and 2 more, for the same reason)"),
        (["r", "r", "s"], "http://a: r (and 2 more, 1 for the same reason)"),
        (["r", "s"], "http://a: r (and 1 more)"),
    ],
)
def test_of_several_that_are_not_fit_the_first_says_why(reasons: list[str], end: str) -> None:
    _, backends = three()
    assert joining.causes(dict(zip(backends, reasons, strict=False))) == end


@asynchronous
async def test_one_that_comes_late_or_comes_back_must_be_what_the_others_are() -> None:
    adapters, backends = three(model="m")
    await start(backends)
    facts, check = adapters[0].facts, Joining(backends, "file", transfer=True)
    assert facts is not None
    backends[0].answers, backends[0].facts = False, None
    adapters[0].facts = replace(facts, models=())
    assert await check.again(backends[0]) == "it serves no model, not m"
    adapters[0].facts = None
    assert await check.again(backends[0]) == "away"
    adapters[0].facts = replace(facts, moves_kv=False)
    assert "hands no KV over" in await check.again(backends[0])
    adapters[0].facts = facts
    adapters[1].pair_problem = "lost"
    assert await check.again(backends[0]) == "KV does not move from http://b to http://a: lost"
    adapters[1].pair_problem = None
    assert await check.again(backends[0]) == ""
    assert backends[0].facts == facts


@asynchronous
async def test_kv_that_nobody_fetches_is_released_before_the_end() -> None:
    adapters, backends = three()
    backends.release_later(backends[1], Handover("http://b", 0.0))
    await backends.close()
    assert len(adapters[1].released) == 1


def test_places_are_dealt_in_turn() -> None:
    _, backends = three()
    backends.remove(backends[0])
    assert backends.add(FakeAdapter("http://d")).place == 3, "what was at a place may still be spoken of"
    assert backends.find("http://d/") is backends[3]
    assert backends.find("http://a") is None
