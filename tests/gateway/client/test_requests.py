"""What clients may send: everything wrong is a 4xx in OpenAI's form, nothing is a 5xx; keys, classes, lengths."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.completion_request import CHAT, COMPLETIONS, CompletionRequest
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.gateway_file import Key
from tests.gateway.served import MODEL, Live, Reply, live_gateway

METER = PromptMeter(4.0)
GOOD: dict[str, Any] = {"model": MODEL, "prompt": "hello", "max_tokens": 2}


def checked(reply: Reply, status: int, reason: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    assert "error" in reply.json, reply
    error = reply.json["error"]
    assert reply.status == status, error
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert "Traceback" not in error["message"]
    assert reply.headers["content-type"] == "application/json"
    if reason is not None:
        assert error["code"] == reply.headers["x-fluidgate-reason"] == reason
    return error


def deep(levels: int) -> bytes:
    return b'{"model":"emulated","prompt":"a","x":' + b"[" * levels + b"]" * levels + b"}"


BODIES: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "a text": b'"hi"',
    "NaN": b'{"model":"emulated","prompt":"a","temperature":NaN}',
    "infinity": b'{"model":"emulated","prompt":"a","max_tokens":Infinity}',
    "deep": deep(200_000),
    "less deep": deep(600),
    "binary": b"\xff\xfe\x00",
    "a lone surrogate": b'{"model":"emulated","prompt":"\\ud800"}',
    "bad UTF-8": b'{"model":"emulated","prompt":"\xc3("}',
    "two values": b'{"model":"emulated","prompt":"a"} {}',
}

WRONG: dict[str, dict[str, Any]] = {
    "no model": {"model": None},
    "model of a number": {"model": 3},
    "no prompt": {"prompt": None},
    "empty prompt": {"prompt": ""},
    "no tokens": {"prompt": []},
    "prompt of an object": {"prompt": {"a": 1}},
    "prompt of mixed things": {"prompt": [1, "a"]},
    "prompt of negative tokens": {"prompt": [-1]},
    "prompt of truths": {"prompt": [True]},
    "prompt of a huge token": {"prompt": [2**70]},
    "max_tokens of zero": {"max_tokens": 0},
    "max_tokens of a text": {"max_tokens": "9"},
    "max_tokens of a fraction": {"max_tokens": 1.5},
    "max_tokens of a truth": {"max_tokens": True},
    "max_tokens too great": {"max_tokens": 10**30},
    "stream of a text": {"stream": "yes"},
    "no answers": {"n": 0},
    "n of a truth": {"n": True},
    "too many answers": {"n": 129, "prompt": ["a", "b"]},
    "one of several prompts empty": {"prompt": ["a", ""]},
    "options of a text": {"stream_options": "include_usage"},
    "somebody's KV": {"kv_transfer_params": {"do_remote_prefill": True}},
    "somebody's slot": {"id_slot": 0},
}


def test_bodies_that_are_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All against one gateway, which serves on afterwards and has written no traceback."""

    async def run() -> None:
        async with live_gateway(tmp_path, more="[limits]\nmax_body_bytes = 1000000\nmax_prompt_tokens = 500\n") as live:
            for path in (COMPLETIONS, CHAT):
                for what, body in BODIES.items():
                    reply = await live.send(path, body)
                    assert reply.status == 400, (what, reply.content)
                    checked(reply, 400)
            for what, change in WRONG.items():
                reply = await live.post(**(GOOD | change))
                assert reply.status == 400, (what, reply.content)
                checked(reply, 400)
            for messages in (None, [], "hi", ["hi"], [{"role": "user", "content": 3}], [{"content": [1]}], [3]):
                error = checked(await live.post(CHAT, messages=messages), 400)
                assert error["param"].startswith("messages")
            checked(await live.post(**(GOOD | {"model": "m" * 5000})), 404, "model_not_found")
            checked(await live.post(**(GOOD | {"prompt": "x" * 4000})), 400, "prompt_too_long")
            checked(await live.post(**(GOOD | {"prompt": [1] * 501})), 400, "prompt_too_long")
            checked(await live.get("/v1/completions"), 405, "method_not_allowed")
            checked(await live.send("/health", b""), 405, "method_not_allowed")
            checked(await live.get("/v1/nothing"), 404, "not_found")
            checked(await live.get("/%00%ff"), 404, "not_found")
            await still_serves(live)

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


async def still_serves(live: Live) -> None:
    assert (await live.complete(3)).done
    await live.until(live.at_rest)


def test_the_engine_reads_the_request_that_was_checked(tmp_path: Path) -> None:
    """The last of two equal keys counts, whatever an engine's parser would take."""

    async def run() -> None:
        async with live_gateway(tmp_path, kind="vllm-coupled") as live:
            twice = b'{"kv_transfer_params":{"do_remote_prefill":true},"model":"emulated","prompt":"a","max_tokens":1,'
            checked(await live.send(COMPLETIONS, twice + b'"kv_transfer_params":{"a":1}}'), 400)
            assert (await live.send(COMPLETIONS, twice + b'"kv_transfer_params":null}')).status == 200
            request = CompletionRequest.parsed(COMPLETIONS, twice + b'"kv_transfer_params":null}')
            assert b"do_remote_prefill" not in request.raw
            await still_serves(live)

    asyncio.run(run())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("model", "prompt", "messages", "max_tokens", "max_completion_tokens", "stream", "n", "best_of", "tools")
KEYS += ("kv_transfer_params", "id_slot", "stream_options", "echo", "logprobs", "suffix")
REQUESTS = st.fixed_dictionaries({"model": st.just(MODEL)}, optional=dict.fromkeys(KEYS[1:], JSON))


@given(
    path=st.sampled_from([COMPLETIONS, CHAT]), body=st.binary(max_size=60) | REQUESTS.map(json.dumps).map(str.encode)
)
@settings(max_examples=400, derandomize=True)
def test_any_body_is_taken_or_refused(path: str, body: bytes) -> None:
    try:
        request = asyncio.run(CompletionRequest.parsed(path, body).measured(METER))
    except ApiError as error:
        refused = error
    else:
        assert orjson.loads(request.raw) == request.body
        assert request.prompt_tokens >= 0
        return
    assert refused.status == 400
    assert orjson.loads(refused.body())["error"]["type"] == "invalid_request_error"


def test_any_body_gets_an_answer_that_is_no_fault_of_ours(tmp_path: Path) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path) as live:

            @given(path=st.sampled_from([COMPLETIONS, CHAT]), body=REQUESTS)
            @settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
            def fuzz(path: str, body: dict[str, Any]) -> None:
                body = body | {"max_tokens": 2} if isinstance(body.get("max_tokens"), int) else body
                sent = asyncio.run_coroutine_threadsafe(live.send(path, json.dumps(body).encode()), loop)
                assert sent.result(60).status < 500

            loop = asyncio.get_running_loop()
            await asyncio.to_thread(fuzz)
            await live.until(live.at_rest)

    asyncio.run(run())


async def raw(live: Live, *pieces: bytes) -> bytes:
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(20.0):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def message(headers: bytes, body: bytes = b"", line: bytes = b"POST /v1/completions HTTP/1.1") -> bytes:
    return line + b"\r\nhost: x\r\nconnection: close\r\n" + headers + b"\r\n" + body


def test_tricks_with_headers(tmp_path: Path) -> None:
    body = json.dumps(GOOD).encode()
    length = b"content-length: %d\r\n" % len(body)
    chunked = b"transfer-encoding: chunked\r\n"
    tricks = {
        "both lengths": (message(length + chunked, b"0\r\n\r\n"), b"400"),
        "two lengths": (message(length + b"content-length: 3\r\n", body), b"400"),
        "a length of a word": (message(b"content-length: many\r\n", body), b"400"),
        "a negative length": (message(b"content-length: -5\r\n", body), b"400"),
        "a huge length": (message(b"content-length: " + b"9" * 40 + b"\r\n", body), b"400"),
        "no HTTP": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        "a path of bytes": (message(b"", line=b"GET /\xff\xfe HTTP/1.1"), b"400"),
        "a long header": (message(length + b"x-a: " + b"a" * 100_000 + b"\r\n", body), b"431"),
        "many headers": (message(length + b"".join(b"x-%d: a\r\n" % k for k in range(20_000)), body), b"431"),
        "a header without an end": (b"GET /health HTTP/1.1\r\nx-a: " + b"a" * 200_000, b"431"),
        "a long path": (message(b"", line=b"GET /" + b"a" * 100_000 + b" HTTP/1.1"), b"431"),
        "a wait of a word": (message(length + b"x-fluidgate-max-wait: long\r\n", body), b"400"),
        "a wait of nan": (message(length + b"x-fluidgate-max-wait: nan\r\n", body), b"400"),
        "two waits": (message(length + b"x-fluidgate-max-wait: 1\r\nx-fluidgate-max-wait: 2\r\n", body), b"400"),
        "an upgrade": (message(length + b"upgrade: h2c\r\n", body), b"200"),
        "chunks": (message(chunked, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)), b"200"),
        "a name of an id": (message(length + b"x-request-id: a\tb\r\n", body), b"200"),
        "two ids": (message(length + b"x-request-id: a\r\nx-request-id: b\r\n", body), b"200"),
        "an underscore": (message(length + b"x_fluidgate_max_wait: long\r\n", body), b"200"),
    }

    async def run() -> None:
        async with live_gateway(tmp_path) as live:
            for name, (sent, status) in tricks.items():
                answer = await raw(live, sent)
                head, _, content = answer.partition(b"\r\n\r\n")
                assert head.split(b" ")[1:2] == [status], (name, answer[:300])
                if status != b"200":
                    assert set(json.loads(content)["error"]) == {"message", "type", "param", "code"}, name
                    assert b"x-fluidgate-reason: " in head, name
                elif "id" in name:
                    assert b"x-request-id: fg-" in head, "the gateway's own"
            await still_serves(live)

    asyncio.run(run())


def test_bodies_that_are_too_large(tmp_path: Path) -> None:
    """By their length or in truth; who sends them sees why."""
    most = 100_000

    async def run() -> None:
        async with live_gateway(tmp_path, more=f"[limits]\nmax_body_bytes = {most}\n") as live:
            big = json.dumps(GOOD | {"prompt": "x" * 2 * most}).encode()
            checked(await live.send(COMPLETIONS, big), 413, "body_too_large")

            async def in_chunks() -> Any:
                for k in range(0, len(big), 5000):
                    yield big[k : k + 5000]

            async with live.session.post(live.url + COMPLETIONS, data=in_chunks()) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["code"] == "body_too_large"
            answer = await raw(live, message(b"content-length: 99999999\r\n", b"x" * 1000), b"x" * 10 * most)
            assert answer[:12] in (b"HTTP/1.1 413", b"")
            await still_serves(live)

    asyncio.run(run())


SECRET, OTHER = "sk-correct-horse-battery", "sk-another-secret-of-b"
KEYED = f"""[[keys]]
name = "a"
sha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"

[[keys]]
name = "b"
sha256 = "{hashlib.sha256(OTHER.encode()).hexdigest()}"

[[rules]]
class = "code"
key = "b"
"""


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Asked for on every end point of OpenAI's; never in the log, the metrics, an answer, or at an engine."""

    async def run() -> None:
        async with live_gateway(tmp_path, more=KEYED) as live:
            wrong = "sk-wrong-secret"
            for headers in (
                {},
                bearer(wrong),
                bearer(""),
                {"authorization": SECRET},
                {"authorization": f"Basic {SECRET}"},
            ):
                for reply in (await live.complete(2, headers=headers), await live.get("/v1/models", headers)):
                    assert checked(reply, 401, "invalid_api_key")["type"] == "authentication_error"
                    assert wrong.encode() not in reply.content
            checked(await live.get("/v1/plan"), 401)
            assert (await live.get("/health")).status == 200
            assert (await live.complete(2, headers=bearer(SECRET))).done
            assert (await live.complete(2, headers={"authorization": f"bearer  {OTHER} "})).done
            await live.until(live.at_rest)
            served = [(r["key"], r["class"]) for r in live.records() if r["outcome"] == "completed"]
            assert served == [("a", "chat"), ("b", "code")]
            told = live.log.read_text() + (await live.get("/metrics")).content.decode() + caplog.text
            for secret in (SECRET, OTHER, wrong):
                assert secret not in told

    with caplog.at_level(logging.DEBUG, logger="fluidgate"):
        asyncio.run(run())


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No early end: the time says nothing of where or whether a key fits."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("fluidgate.gateway.client.keyring.hmac.compare_digest", compare)
    keys = [Key(name, hashlib.sha256(name.encode()).digest()) for name in "abc"]
    ring = Keyring(keys)
    for given_key in ("a", "c", "no such key at all"):
        compared.clear()
        try:
            ring.holder([f"Bearer {given_key}"])
        except ApiError:
            assert given_key.startswith("no")
        assert compared == [(32, 32)] * 3


RULES = """default_class = "chat"

[[rules]]
class = "code"
header = { X-Class = "code", x-team = "a" }

[[rules]]
class = "chat"
max_prompt_tokens = 20

[[rules]]
class = "code"
min_prompt_tokens = 200

[[rules]]
class = "code"
path = "chat"
"""


def test_the_first_rule_that_is_met_says_the_class(tmp_path: Path) -> None:
    team = {"x-class": "code", "x-team": "a"}

    async def run() -> None:
        async with live_gateway(tmp_path, more=RULES) as live:
            short, middle, long = [1] * 10, [1] * 100, [1] * 300
            cases = [
                ({"prompt": short}, {}, "chat"),
                ({"prompt": short}, team, "code"),
                ({"prompt": short}, {"x-class": "code"}, "chat"),
                ({"prompt": middle}, {}, "chat"),
                ({"prompt": long}, {}, "code"),
                ({"prompt": long}, {"x-class": "chat"}, "code"),
            ]
            for body, headers, _ in cases:
                assert (await live.complete(1, headers=headers, **body)).done
            text = [{"role": "user", "content": "word " * 60}]
            assert (await live.post(CHAT, messages=text, max_tokens=1)).status == 200
            await live.until(live.at_rest)
            assert [record["class"] for record in live.records()] == [cls for *_, cls in cases] + ["code"]

    asyncio.run(run())


def test_a_header_that_comes_twice_meets_no_rule_by_half(tmp_path: Path) -> None:
    body = json.dumps(GOOD).encode()
    head = b"content-length: %d\r\nx-team: a\r\nx-class: %s\r\nx-class: %s\r\n"

    async def run() -> None:
        async with live_gateway(tmp_path, more=RULES) as live:
            for one, other in ((b"code", b"chat"), (b"chat", b"code"), (b"code", b"code")):
                assert b" 200 " in await raw(live, message(head % (len(body), one, other), body))
            await live.until(live.at_rest)
            assert [record["class"] for record in live.records()] == ["chat", "chat", "code"]

    asyncio.run(run())


def test_a_tokenizer_counts(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = tokenizers.Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    meter = PromptMeter(4.0, tmp_path / "tokenizer.json")
    assert meter.count("completion", {"prompt": "a b a long-word"}) == 6
    assert METER.count("completion", {"prompt": "a b a long-word"}) == 4
    assert METER.count("completion", {"prompt": "é" * 8}) == 4


def test_lengths_of_answers_are_learnt(tmp_path: Path) -> None:
    """By class, from what was written; never from what a request says that it may write."""

    async def run() -> None:
        async with live_gateway(tmp_path, engine={"output_tokens": 1.0}) as live:
            controller = live.gateway.controller
            assert controller is not None
            before = controller.estimator.at(live.gateway.clock()).output
            for _ in range(12):
                reply = await live.complete(500, ignore_eos=False)
                assert reply.tokens == 1, "the engine stops where it likes"
            after = controller.estimator.at(live.gateway.clock())
            rule = live.gateway.settings.replanning
            assert rule is not None
            prior = 0.2 * 2 * (rule.window if rule.prior is None else rule.prior)  # requests, of 60 tokens each
            assert after.output[0] == pytest.approx((60.0 * prior + 12.0) / (prior + 12.0), rel=0.15)
            assert after.output[1] == pytest.approx(before[1])
            assert after.prompt[0] == pytest.approx(100.0, rel=0.05)

    asyncio.run(run())


class InThread:
    """A gateway in a loop of its own, so that blocking clients can be used as they are."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.url = ""
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(folder, options))

    def __enter__(self) -> InThread:
        self._thread.start()
        assert self.ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self, folder: Path, options: dict[str, Any]) -> None:
        async def serve() -> None:
            try:
                async with live_gateway(folder, **options) as live:
                    self.url = live.url
                    self.ready.set()
                    await self._end.wait()
            finally:
                self.ready.set()

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(serve())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[openai.OpenAI]:
    more = f"[limits]\nmax_body_bytes = 200000\nmax_prompt_tokens = 5000\n{KEYED}"
    with (
        InThread(tmp_path, more=more) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key=SECRET, max_retries=0) as made,
    ):
        yield made


def test_the_official_client(client: openai.OpenAI) -> None:
    """Unmodified: its answers, its streams, and its exceptions."""
    whole = client.completions.create(model=MODEL, prompt="hello", max_tokens=3)
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 3
    hello: Any = [{"role": "user", "content": "hello"}]
    stream = client.chat.completions.create(model=MODEL, messages=hello, max_tokens=3, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert [model.id for model in client.models.list()] == [MODEL]

    def fails(kind: type[openai.APIStatusError], code: str, **body: Any) -> None:
        with pytest.raises(kind) as raised:
            client.completions.create(**({"model": MODEL, "prompt": "a", "max_tokens": 1} | body))
        assert raised.value.code == code
        assert raised.value.response.headers["x-fluidgate-reason"] == code

    fails(openai.BadRequestError, "invalid_request", n=0)
    fails(openai.BadRequestError, "prompt_too_long", prompt="x" * 100_000)
    fails(openai.NotFoundError, "model_not_found", model="other")
    fails(openai.APIStatusError, "body_too_large", prompt="x" * 300_000)
    client.api_key = "sk-wrong"
    fails(openai.AuthenticationError, "invalid_api_key")


@pytest.mark.parametrize("host", ["127.0.0.1"])
def test_nothing_listens_beyond_loopback_unless_asked(tmp_path: Path, host: str) -> None:
    async def run() -> None:
        async with live_gateway(tmp_path) as live:
            assert live.whole.settings.server.host == host

    asyncio.run(run())
