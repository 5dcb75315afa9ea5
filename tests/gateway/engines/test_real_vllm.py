"""The adapters, and the gateway, before real vLLM servers on a CPU.

Run by `FLUIDGATE_VLLM=/path/to/venv pytest tests/gateway/engines/test_real_vllm.py -s`; -s shows what was measured.
Needs some minutes and 10 GB of memory. The environment holds vLLM for CPU (0.32 was used) and NIXL.
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

import openai
import orjson
import pytest
from aiohttp.test_utils import unused_port

from fluidgate.gateway.client.running import running_gateway
from fluidgate.gateway.engines import Adapter, Call, EngineError, EngineRefused, Handover, KvLost, Vllm, VllmCoupled
from fluidgate.gateway.engines.sse import TokenCounter, stated_tokens
from tests.gateway.asynchronous import asynchronous, until
from tests.gateway.served import scenario, settings_of

ENVIRONMENT = os.environ.get("FLUIDGATE_VLLM")
pytestmark = pytest.mark.skipif(not ENVIRONMENT, reason="FLUIDGATE_VLLM names no environment with vLLM")

LEASE = 30.0
WELL_BEFORE = 20.0
"""s after which KV that was fetched or released is free at the latest: engines tell each other when they next step."""
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
        handover = await one.read_prompt(request)
        assert await whole(two, request, handover) == (alone, tokens)
        print(f"\n {tokens} tokens read in {handover.epoch - start:.2f} s, and from then on")
        print(f" 32 written in {time.monotonic() - handover.epoch:.2f} s: {alone!r}")
        after = await sources(two)
        assert after[b"external_kv_transfer"] - before[b"external_kv_transfer"] >= tokens - 1
        assert after[b"local_compute"] - before[b"local_compute"] <= 1
        await frees(one, WELL_BEFORE)


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
        await frees(one, WELL_BEFORE)


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
        await frees(one, WELL_BEFORE)
        print("\n released in", time.monotonic() - start, "s")


@asynchronous
async def test_kv_that_nobody_fetches_waits_for_the_lease(servers):
    async with pair(servers) as (one, two):
        await frees(one, 2 * LEASE)
        handover = await one.read_prompt(call(8))
        await asyncio.sleep(WELL_BEFORE)
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

        await until(idle, WELL_BEFORE)
        await frees(two, WELL_BEFORE)


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

        await until(idle, WELL_BEFORE)


@asynchronous
async def test_a_request_that_is_at_fault_is_refused(servers):
    async with pair(servers) as (one, two):
        request = call(11, tokens=5000)
        handover = await one.read_prompt(request)
        with pytest.raises(EngineRefused) as caught:
            await whole(two, request, handover)
        assert (caught.value.status, caught.value.elsewhere) == (400, False)


@asynchronous
async def test_the_gateway_places_decodes_after_their_prefill(servers, tmp_path):
    """Gate-and-route before the pair: prompts are read on the mixed engine, and KV moves to the solo one."""
    of = scenario(rate=0.02)
    settings = settings_of(tmp_path, [servers.one.url, servers.two.url], of, policy="gate-and-route")
    async with running_gateway(settings) as (gateway, url), adapter(Vllm, servers.one) as one:
        before = [await sources(each) for each in gateway.backends.adapters]
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        answers = await asyncio.gather(*(streamed(client, call(100 + k).body) for k in range(6)))
        after = [await sources(each) for each in gateway.backends.adapters]
        roles = [engine["role"] for engine in gateway.snapshot()["engines"]]
        expected = [await whole(one, call(100 + k, tokens=16)) for k in range(6)]
    assert sorted(roles) == ["mixed", "solo"]
    assert answers == [text for text, _ in expected]
    moved = after[roles.index("solo")][b"external_kv_transfer"] - before[roles.index("solo")][b"external_kv_transfer"]
    records = [orjson.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
    print("\n tokens whose KV moved:", moved, *(f"\n {orjson.dumps(record).decode()}" for record in records))
    assert [record["outcome"] for record in records] == ["completed"] * 6
    assert moved > 0
    assert any(record["prefill_engine"] != record["decode_engine"] for record in records)


async def streamed(client, body) -> str:
    asked = {key: value for key, value in body.items() if key not in ("stream", "ignore_eos", "max_tokens")}
    stream = await client.completions.create(**asked, max_tokens=16, stream=True, extra_body={"ignore_eos": True})
    return "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])


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
