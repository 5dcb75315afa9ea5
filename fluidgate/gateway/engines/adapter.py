"""What the gateway asks of an engine, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from fluidgate.gateway.engines.upstream import Answer, Connections, Upstream

Role = Literal["both", "prefill", "decode"]
"""What an engine takes: whole requests, or one side of pairs."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


SPLIT = ("/v1/completions", "/v1/chat/completions")
"""End points whose prefill and decode can be two calls."""


@dataclass(frozen=True)
class Abilities:
    """What an engine can do.

    Attributes:
        late: the engine that decodes may be chosen after the prefill, on another one: KV moves.
        two_legs: a request can be prefilled and decoded by two calls to the same engine.
        lease: s for which the KV of a prompt waits to be fetched.
        pairs: each request takes two engines, called at once: one reads its prompt, the other writes its answer.
    """

    late: bool
    two_legs: bool
    lease: float
    pairs: bool = False


@dataclass(frozen=True)
class Served:
    """What an engine serves now.

    Attributes:
        models: by name.
        adapters: those of them that are adapters (LoRA) of another.
    """

    models: tuple[str, ...]
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a check of an engine found.

    Attributes:
        models: names that it serves; `adapters`, those of them that are adapters (LoRA) of another.
        max_model_len: most tokens of prompt and answer together, if it says so.
        slots: most requests at a time, if it says so.
        moves_kv: it hands the KV of a prompt over; whether another engine receives it, `check_pair` says.
        version: if it says so.
        remarks: what an operator ought to know, a sentence each.
        role: what it takes.
        kv_tokens: of its KV memory, if it says so.
    """

    models: tuple[str, ...]
    max_model_len: int | None
    slots: int | None
    moves_kv: bool
    version: str | None
    remarks: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    role: Role = "both"
    kv_tokens: int | None = None

    @property
    def served(self) -> Served:
        return Served(self.models, self.adapters)

    def serving(self, served: Served) -> Facts:
        """The same, of an engine that now serves this."""
        return replace(self, models=served.models, adapters=served.adapters)


@dataclass(frozen=True)
class Load:
    """What an engine says of itself now.

    Attributes:
        running: requests in its batch; None if it does not say.
        waiting: requests in its queue; None if it does not say.
        kv_usage: share of its KV memory in use, if it says so.
        prefix_hits: prompt tokens found in its memory since its start, if it says so.
        prompt_tokens: of all prompts since its start, wherever their KV came from, if it says so.
    """

    running: int | None
    waiting: int | None
    kv_usage: float | None
    prefix_hits: float | None = None
    prompt_tokens: float | None = None

    @property
    def counted(self) -> bool:
        """Whether it says how many requests are on it."""
        return self.running is not None

    @property
    def requests(self) -> int:
        """On it, as far as it says."""
        return (self.running or 0) + (self.waiting or 0)


@dataclass(frozen=True)
class Call:
    """A client's request, as it goes upstream.

    Attributes:
        path: of the end point.
        body: its JSON; never changed.
        raw: the same, as it came.
        id: X-Request-Id of every leg.
        headers: to pass on, such as Authorization and traceparent.
        silence: the longest that the engine may say nothing within the answer, s; None for what its connections allow.
    """

    path: str
    body: Mapping[str, Any]
    raw: bytes
    id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    silence: float | None = None

    @property
    def stream(self) -> bool:
        """Whether the answer comes token by token."""
        return bool(self.body.get("stream"))

    @property
    def splits(self) -> bool:
        """Whether prefill and decode can be two calls: a completion of one prompt, answered once, and not asked for its
        odds."""
        if self.path not in SPLIT:
            return False
        body = self.body
        prompt = body.get("prompt")
        one = not isinstance(prompt, list) or len(prompt) < 2 or not isinstance(prompt[0], str | list)
        once = (body.get("n") or 1) == 1 and (body.get("best_of") or 1) == 1 and not body.get("use_beam_search")
        odds = body.get("prompt_logprobs") is not None or (body.get("echo") and body.get("logprobs") is not None)
        return one and once and not odds


@dataclass(frozen=True)
class Handover:
    """The KV of a prompt, on the engine that read it.

    Attributes:
        url: of that engine.
        epoch: when the prompt had been read, s of `time.monotonic`.
        data: what the engines need to find it; for adapters only.
        prompt_tokens: of the prompt, as the engine counted them; None if it does not say.
        cached_tokens: those of them that it had not to read; None if it does not say.
    """

    url: str
    epoch: float
    data: Any = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


class Adapter(ABC):
    """One engine. Calls raise the errors of `fluidgate.gateway.engines.errors`.

    Attributes:
        url: of the engine, without `/v1`.
        abilities: what it can do, as far as is known; a check may find that it cannot.
    """

    abilities: Abilities

    def __init__(
        self, url: str, *, connections: Connections | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        """
        Args:
            url: of the engine, without `/v1`.
            connections: of the whole gateway; by default the adapter has its own.
            headers: sent with every call, such as the engine's Authorization.
        """
        self.url = url.rstrip("/")
        self._shared = connections
        self._headers = headers

    async def start(self) -> None:
        """Before the first call."""
        self._connections = self._shared or Connections()
        self.upstream = Upstream(self.url, self._connections, self._headers)

    async def close(self) -> None:
        """After the last call."""
        if self._shared is None:
            await self._connections.close()

    @property
    def heard(self) -> int:
        """Grows whenever the engine answers a request, or goes on with an answer; looks at it do not count."""
        return self.upstream.heard

    @abstractmethod
    async def check(self) -> Facts:
        """Ask the engine what it is, and bring `abilities` up to date."""

    async def check_pair(self, other: Adapter) -> str | None:
        """Move the KV of a probe from here to `other`, which also warms the pair: None, or what is wrong."""
        return f"{self.url} hands no KV to {other.url}"

    @abstractmethod
    async def look_up_models(self) -> Served:
        """Ask the engine what it serves."""

    @abstractmethod
    async def load(self) -> Load:
        """Ask the engine how busy it is."""

    @abstractmethod
    async def read_prompt(self, call: Call, to: Adapter | None = None) -> Handover:
        """The prefill; to be followed by `write_answer` or `release`.

        Args:
            to: the engine of the decode, which pairs must know before: it is called too, and what the handover brings
                to its `write_answer` is the call that waits there. Others ignore it.

        Raises:
            EngineError: of either engine of a pair, its URL in it; the other has been told to stop.
        """

    @abstractmethod
    def write_answer(self, call: Call, handover: Handover | None) -> AbstractAsyncContextManager[Answer]:
        """The decode of a prompt read here or on another engine, or, without a handover, the whole request.

        It opens with the first byte of a stream, so that until then all may be tried anew: after `KvLost` from the
        prefill on, after `EngineUnreachable` with the same handover elsewhere. Leaving the context early aborts.
        """

    def pass_by(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """What the engine answers to a request that takes no slot of it, such as /tokenize."""
        return self.upstream.open(call.path, call.raw, call.id, call.headers, silence=call.silence)

    async def release(self, handover: Handover) -> None:  # noqa: B027
        """The KV of a prompt read here is needed no more; never fails."""
