"""The adapters before real vLLM servers on a CPU.

Run by `FLUIDGATE_VLLM=/path/to/venv pytest tests/gateway/test_real_vllm.py -s`; -s shows what was measured. Needs
some minutes and 10 GB of memory. The environment holds vLLM for CPU (0.32 was used) and NIXL.
"""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest
from aiohttp.test_utils import unused_port

from fluidgate.gateway.engines import Adapter, Call, EngineError, EngineRefused, Handover, KvLost, Vllm, VllmCoupled
from fluidgate.gateway.sse import TokenCounter, stated_tokens
from tests.gateway.asynchronous import asynchronous, until

ENVIRONMENT = os.environ.get("FLUIDGATE_VLLM")
pytestmark = pytest.mark.skipif(not ENVIRONMENT, reason="FLUIDGATE_VLLM names no environment with vLLM")

LEASE = 12.0
STARTS_WITHIN = 240.0
SOURCE = re.compile(rb'^vllm:prompt_tokens_by_source_total\{.*source="(\w+)".*\} (\S+)$', re.MULTILINE)


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Servers:
    one: Server
    two: Server
    coupled: Server


def spawn(venv: Path, model: Path, logs: Path, *, transfers: bool) -> Server:
    port = unused_port()
    command = [venv / "bin/vllm", "serve", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager"]
    command += ["--max-num-batched-tokens", "256"]
    if transfers:
        extra = {"kv_lease_duration": int(LEASE)}
        config = {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": "cpu"}
        command += ["--kv-transfer-config", orjson.dumps(config | {"kv_connector_extra_config": extra}).decode()]
    settings = {
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "UCX_TLS": "tcp,shm,self",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(unused_port()),
    }
    with (logs / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True)
    return Server(f"http://127.0.0.1:{port}", process)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A pair that exchanges KV, and one that does not."""
    venv, folder = Path(ENVIRONMENT or ""), tmp_path_factory.mktemp("vllm")
    model = folder / "tiny"
    subprocess.run([venv / "bin/python", Path(__file__).with_name("tiny_llama.py"), model], check=True)
    started = [spawn(venv, model, folder, transfers=transfers) for transfers in (True, True, False)]
    try:
        for server in started:
            asyncio.run(up(server, folder))
        yield Servers(*started)
    finally:
        for server in started:
            server.stop()


async def up(server: Server, logs: Path) -> None:
    async with adapter(VllmCoupled, server) as one:

        async def answers() -> bool:
            assert server.process.poll() is None, f"vLLM ended; see {logs}"
            with suppress(EngineError):
                return bool(await one.load()) or True
            await asyncio.sleep(0.5)
            return False

        await until(answers, STARTS_WITHIN)


@asynccontextmanager
async def adapter(kind: type[Adapter], server: Server) -> AsyncIterator[Adapter]:
    one = kind(server.url, lease=LEASE) if kind is Vllm else kind(server.url)
    await one.start()
    try:
        yield one
    finally:
        await one.close()


@asynccontextmanager
async def pair(servers: Servers) -> AsyncIterator[tuple[Vllm, Vllm]]:
    """The two that exchange KV, checked both ways, so that each knows how to release."""
    async with adapter(Vllm, servers.one) as one, adapter(Vllm, servers.two) as two:
        assert isinstance(one, Vllm)
        assert isinstance(two, Vllm)
        assert await one.check_pair(two) is None
        assert await two.check_pair(one) is None
        yield one, two


def call(seed: int, *, tokens: int = 32, stream: bool = False, chat: bool = False, words: int = 90) -> Call:
    prompt = f"{seed} " + " ".join(f"word{(seed * 31 + i * i) % 97}" for i in range(words))
    body: dict = {"model": "tiny", "max_tokens": tokens, "temperature": 0, "stream": stream, "ignore_eos": True}
    body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    return Call(path, body, orjson.dumps(body), f"request-{seed}")


async def whole(one: Adapter, request: Call, handover: Handover | None = None) -> tuple[str, int]:
    """The text, and the tokens of the prompt."""
    async with one.write_answer(request, handover) as answer:
        body = orjson.loads(await answer.read())
    choice = body["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"], body["usage"]["prompt_tokens"]


async def sources(one: Adapter) -> dict[bytes, float]:
    return {source: float(tokens) for source, tokens in SOURCE.findall(await one.upstream.get("/metrics"))}


async def pinned(one: Adapter) -> float:
    usage = (await one.load()).kv_usage
    assert usage is not None
    return usage


async def frees(one: Adapter, seconds: float) -> None:
    async def nothing_pinned() -> bool:
        return await pinned(one) == 0.0

    await until(nothing_pinned, seconds)


@asynchronous
async def test_what_is_found_out(servers):
    async with pair(servers) as (one, _), adapter(VllmCoupled, servers.coupled) as coupled:
        facts, other = await one.check(), await coupled.check()
        print("\n", facts, other)
    assert (facts.models, facts.max_model_len, facts.moves_kv, facts.remarks) == (("tiny",), 2048, True, ())
    assert (other.moves_kv, coupled.abilities.two_legs, other.remarks) == (False, True, ())
    assert facts.version is not None


@asynchronous
async def test_an_engine_without_a_connector_is_found_out(servers):
    async with adapter(Vllm, servers.coupled) as coupled, adapter(Vllm, servers.one) as one:
        facts = await coupled.check()
        assert not facts.moves_kv
        assert len(facts.remarks) == 1
        problem = await one.check_pair(coupled)
        print("\n", problem)
        assert problem is not None
        assert "again" in problem
        await frees(one, 2 * LEASE)


@pytest.mark.parametrize("chat", [False, True])
@asynchronous
async def test_an_answer_written_elsewhere_is_the_same_and_its_prompt_is_not_read_again(servers, chat):
    request = call(1 + chat, chat=chat)
    async with pair(servers) as (one, two), adapter(VllmCoupled, servers.coupled) as coupled:
        alone, tokens = await whole(coupled, request)
        other, _ = await whole(coupled, call(50, chat=chat))
        assert alone != other
        before = await sources(two)
        start = time.monotonic()
        assert await whole(two, request, await one.read_prompt(request)) == (alone, tokens)
        print("\n moved in", time.monotonic() - start, "s;", tokens, "tokens;", repr(alone))
        after = await sources(two)
        assert after[b"external_kv_transfer"] - before[b"external_kv_transfer"] >= tokens - 1
        assert after[b"local_compute"] - before[b"local_compute"] <= 1
        await frees(one, LEASE / 2)


@pytest.mark.parametrize("states", [False, True])
@asynchronous
async def test_a_stream_written_elsewhere(servers, states):
    request = call(4, stream=True, chat=True)
    body = dict(request.body) | {"stream_options": {"include_usage": True, "continuous_usage_stats": states}}
    request = replace(request, body=body, raw=orjson.dumps(body))
    async with pair(servers) as (one, two):
        counter, so_far = TokenCounter(), [0]
        async with two.write_answer(request, await one.read_prompt(request)) as answer:
            async for chunk in answer.chunks():
                counter.feed(chunk)
                so_far.append(counter.tokens)
    assert counter.finished
    assert not counter.failed
    print("\n tokens after each chunk:", so_far)
    assert counter.tokens == 32
    assert so_far == sorted(so_far)


@asynchronous
async def test_a_decode_that_stays_uses_the_prefix_cache_and_lets_go(servers):
    request = call(5)
    async with pair(servers) as (one, _), adapter(VllmCoupled, servers.coupled) as coupled:
        alone, tokens = await whole(coupled, request)
        handover = await one.read_prompt(request)
        before = await sources(one)
        assert await whole(one, request, handover) == (alone, tokens)
        after = await sources(one)
        hits = after[b"local_cache_hit"] - before[b"local_cache_hit"]
        print("\n", hits, "of", tokens, "tokens from the prefix cache")
        assert hits >= tokens / 2
        await frees(one, LEASE / 2)


@asynchronous
async def test_coupled_legs_share_the_prefix_cache(servers):
    request = call(6)
    async with adapter(VllmCoupled, servers.coupled) as coupled:
        handover = await coupled.read_prompt(request)
        before = await sources(coupled)
        async with coupled.write_answer(request, handover) as answer:
            assert stated_tokens(await answer.read()) == 32
        after = await sources(coupled)
    assert after[b"local_cache_hit"] - before[b"local_cache_hit"] > 0


@asynchronous
async def test_release_frees_at_once(servers):
    async with pair(servers) as (one, _):
        await frees(one, 2 * LEASE)
        handover = await one.read_prompt(call(7))
        assert await pinned(one) > 0.0
        start = time.monotonic()
        await one.release(handover)
        await frees(one, LEASE / 2)
        print("\n released in", time.monotonic() - start, "s")


@asynchronous
async def test_kv_that_nobody_fetches_waits_for_the_lease(servers):
    async with pair(servers) as (one, two):
        await frees(one, 2 * LEASE)
        handover = await one.read_prompt(call(8))
        await asyncio.sleep(LEASE / 2)
        assert await pinned(one) > 0.0
        await frees(one, LEASE)
        print("\n freed after", time.monotonic() - handover.epoch, "s of a lease of", LEASE)
        with pytest.raises(KvLost):
            await whole(two, call(8), handover)
        late = dict(call(8).body) | {"kv_transfer_params": handover.data}
        try:
            print(" a decoder asked all the same says", await two.upstream.post("/v1/completions", late))
        except EngineError as error:
            print(" a decoder asked all the same says", error)


@asynchronous
async def test_a_client_that_goes_away_frees_the_batch(servers):
    async with pair(servers) as (one, two):
        request = call(9, tokens=1000, stream=True)
        async with two.write_answer(request, await one.read_prompt(request)) as answer:
            await anext(answer.chunks())
            assert (await two.load()).running == 1

        async def idle() -> bool:
            return (await two.load()).running == 0

        await until(idle, 5.0)
        await frees(two, 5.0)


@asynchronous
async def test_a_client_that_goes_away_before_the_answer_frees_the_batch(servers):
    async with adapter(VllmCoupled, servers.coupled) as coupled:
        task = asyncio.create_task(whole(coupled, call(10, tokens=1500)))

        async def busy() -> bool:
            return (await coupled.load()).running == 1

        await until(busy, 10.0)
        task.cancel()

        async def idle() -> bool:
            return (await coupled.load()).running == 0

        await until(idle, 5.0)


@asynchronous
async def test_a_request_that_is_at_fault_is_refused(servers):
    async with pair(servers) as (one, two):
        request = call(11, tokens=5000)
        handover = await one.read_prompt(request)
        with pytest.raises(EngineRefused) as caught:
            await whole(two, request, handover)
        assert (caught.value.status, caught.value.elsewhere) == (400, False)


@asynchronous
async def test_kv_of_an_engine_that_died_is_lost(servers):
    async with pair(servers) as (one, two):
        handover = await one.read_prompt(call(12))
        servers.one.stop()
        start = time.monotonic()
        try:
            print("\n an answer from the dead:", await whole(two, call(12), handover))
        except KvLost as error:
            print("\n KV lost, told after", time.monotonic() - start, "s:", error)
        else:
            pytest.fail("a decode whose KV is on a dead engine was answered")
