"""The gateway as a whole: engines, dispatcher, plan, and the requests under way."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

from fluidgate.gateway.client.api_error import ApiError, busy, invalid, unavailable
from fluidgate.gateway.client.ask import Ask, ClientGone, Receive, Send
from fluidgate.gateway.client.classifier import Classifier, Traits
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.request_handler import Journey, Times
from fluidgate.gateway.client.response import Outlet
from fluidgate.gateway.dispatch.controller import Controller
from fluidgate.gateway.dispatch.dispatcher import Dispatcher
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.engines import (
    Adapter,
    Call,
    Connections,
    Handover,
    LlamaCpp,
    Vllm,
    VllmCoupled,
)
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.gateway.metrics import Metrics
from fluidgate.gateway.monitor import Monitor
from fluidgate.gateway.request_log import RequestLog
from fluidgate.gateway.roll_call import RollCall
from fluidgate.policies import Policy

log = logging.getLogger("fluidgate.gateway")

LONGEST_RETRY_AFTER = 60.0

SLOWEST_TOKEN = 1.0
"""s that each token of an answer in one piece may take."""

LONGEST_ANSWER = 1 << 17
"""Tokens, where neither the request nor the engines say."""

SCHEMA = 1

WAIT_HEADER = "x-fluidgate-max-wait"
"""The longest wait for a prefill, and again for a decode, that a client bears, s."""


class Gateway:
    """What is behind the HTTP interface. Everything happens in one event loop, which runs when it is made.

    Attributes:
        adapters: one an engine, in the order of the file.
        dispatcher: the state of the cluster, and the moves of the policy.
        roll_call: what the engines are.
        controller: the plan; None for a policy that reads none.
        draining: whether new requests are refused.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        """
        Raises:
            FluidgateError: the scenario has no plan, or a file of the settings can't be used.
        """
        self.settings = settings
        self.clock = time.monotonic
        self.class_names = settings.scenario.class_names
        self.batch_size = settings.scenario.gpu.batch_size
        self.attempts = settings.limits.attempts
        self.meter = PromptMeter(settings.tokens.bytes_per_token, settings.tokenizer)
        self.keyring = Keyring(settings.keys)
        self.classifier = Classifier(settings.rules, self.class_names, settings.default_class)
        self._connections = Connections(silence=settings.limits.token_seconds)
        self.adapters = adapters_of(settings, self._connections)
        self.lease = min(adapter.abilities.lease for adapter in self.adapters)
        self.binding = self._binding()
        self.controller: Controller | None = None
        self.dispatcher = self._dispatcher()
        self.monitor = Monitor(self, settings.engines.check_seconds)
        self.metrics = Metrics(self)
        self.request_log = RequestLog(settings.server.log)
        self.roll_call = RollCall(self.adapters, settings.model, settings.source)
        self.started = time.time()
        self.draining = False
        self._under_way: set[Journey] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[None]] = set()
        self._ended_at: list[list[float]] = [[] for _ in self.class_names]

    async def start(self) -> None:
        """Find the engines, check them, and begin to look after them.

        Raises:
            FluidgateError: no engine answers, an engine can't serve what the scenario says, or KV does not move.
        """
        for adapter in self.adapters:
            await adapter.start()
        await self.roll_call.take(transfer=self.binding != "stay" and self.settings.engines.check_transfer)
        await self.monitor.first_look()
        self.monitor.start()
        if self.controller is not None and self.settings.replanning is not None:
            self._loops.append(asyncio.create_task(self._follow_the_load(self.controller)))

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, *self._errands, return_exceptions=True)
        await self.monitor.stop()
        for adapter in self.adapters:
            await adapter.close()
        await self._connections.close()
        self.request_log.close()

    async def serve(self, ask: Ask, traits: Traits, client_id: str, receive: Receive, send: Send) -> None:
        """Answer one request for a completion.

        Raises:
            ApiError: it is refused; nothing has been sent.
        """
        cls = self.classifier.class_of(traits)
        limit = min(self.settings.max_wait[cls], client_max_wait(traits))
        id = f"fg-{uuid4().hex}"
        own_usage = self.settings.engines.ask_usage and ask.stream and not ask.asks_for_usage
        sent = ask.with_usage() if own_usage else ask
        call = Call(ask.path, sent.body, sent.raw, id, self._engine_headers(traits), self._silence(ask))
        outlet = Outlet(send, client_id or call.id)
        ticket = Ticket(cls, ask.prompt_tokens, stays=not call.splits)
        self._admit(ticket)
        journey = Journey(self, ask, call, outlet, ticket, traits.key, client_id, limit, own_usage, Times(self.clock()))
        watch = asyncio.create_task(_until_gone(receive, journey))
        self._under_way.add(journey)
        try:
            await journey.run()
        finally:
            watch.cancel()
            self._under_way.discard(journey)
            self.metrics.observe(journey)
            self.request_log.write(journey)
            self._note_end(cls)

    def check_ask(self, ask: Ask) -> None:
        """Refuse what no engine could serve.

        Raises:
            ApiError: another model, or too long a prompt.
        """
        models = self.roll_call.models
        if models and ask.model not in models:
            there = ", ".join(models)
            raise ApiError(404, "model_not_found", f"no model '{ask.model[:100]}'; there is {there}", param="model")
        most = self.settings.limits.max_prompt_tokens
        if most is not None and ask.prompt_tokens > most:
            raise invalid(
                f"the prompt has about {ask.prompt_tokens} tokens; {most} are taken", reason="prompt_too_long"
            )
        length = self.roll_call.context_length
        if length is not None and isinstance(ask.body.get("prompt"), list) and ask.prompt_tokens >= length:
            what = f"the prompt has {ask.prompt_tokens} tokens; the engines take less than {length}"
            raise invalid(what, reason="prompt_too_long")

    def note_refusal(self, error: ApiError, path: str, client_id: str) -> None:
        """A request has been refused before it was of any class."""
        self.metrics.refused(error.reason)
        self.request_log.refused(error, path, client_id)

    def drain(self) -> None:
        """Take nothing new."""
        self.draining = True

    def break_off(self) -> None:
        """End what is still under way, each with an error of its own."""
        for journey in list(self._under_way):
            journey.stop(unavailable("shutting_down", "the gateway is shutting down"))

    @property
    def ready(self) -> bool:
        return not self.draining and self.any_up

    @property
    def any_up(self) -> bool:
        """Whether an engine answers."""
        return any(self.monitor.up)

    # What a journey asks for

    def two_legs(self, stream: bool) -> bool:
        """Whether a request is read by one call and answered by another."""
        if isinstance(self.dispatcher, Placed):
            return False
        if self.binding == "stay":
            return not stream and all(adapter.abilities.two_legs for adapter in self.adapters)
        return True

    def prefill_seconds(self, tokens: int) -> float:
        """How long a prompt takes to be read beside a full batch, by the scenario's law."""
        gpu = self.settings.scenario.gpu
        return math.ceil(tokens / gpu.chunk_size) * gpu.tau

    def retry_after(self, cls: int) -> float:
        """When a request of the class might be served: those that wait over those that ended lately, s."""
        ended = self._ended_at[cls]
        if len(ended) < 2:
            return 1.0
        rate = (len(ended) - 1) / max(1e-3, self.clock() - ended[0])
        return min(LONGEST_RETRY_AFTER, float(self.dispatcher.counts().waiting[cls]) / rate)

    def suspect(self, g: int) -> None:
        self.monitor.suspect(g)

    def back_off(self, g: int) -> None:
        self.monitor.back_off(g)

    def release_later(self, adapter: Adapter, handover: Handover) -> None:
        """Let an engine drop KV that nobody will fetch."""
        self._errand(adapter.release(handover))

    def url_of(self, g: int) -> str | None:
        return self.adapters[g].url if g >= 0 else None

    # What the monitor tells

    def engine_rose(self, g: int, foreign: int) -> None:
        self._plan_for_those_up()
        self.dispatcher.engine_up(g, foreign + self.roll_call.missing_slots(g, self.batch_size))

    def engine_fell(self, g: int) -> None:
        self.dispatcher.engine_down(g)
        self._plan_for_those_up()

    def snapshot(self) -> dict[str, Any]:
        """The plan in force and the cluster now, for /v1/plan, the metrics and `fluidgate watch`."""
        now, counts = self.clock(), self.dispatcher.counts()
        loads = self.monitor.loads
        return {
            "schema": SCHEMA,
            "scenario": self.settings.scenario.name,
            "policy": self.settings.policy.name,
            "binding": self.binding,
            "batch_size": self.batch_size,
            "uptime": time.time() - self.started,
            "draining": self.draining,
            "plan": None if self.controller is None else self.controller.to_dict(now),
            "classes": {
                name: {
                    "prefill": int(counts.prefilling[i]),
                    "prefill_queue": int(counts.waiting[i]),
                    "mixed_decode": int(counts.mixed_decodes[i]),
                    "solo_decode": int(counts.solo_decodes[i]),
                    "decode_queue": int(counts.buffered[i]),
                }
                for i, name in enumerate(self.class_names)
            },
            "engines": [
                {
                    "url": self.adapters[g].url,
                    "role": state.role,
                    "prefills": state.prefills,
                    "decodes": state.decodes,
                    "foreign": state.foreign,
                    "kv_usage": None if (load := loads[g]) is None else load.kv_usage,
                }
                for g, state in enumerate(self.dispatcher.engines())
            ],
        }

    def _binding(self) -> str:
        if not all(adapter.abilities.late for adapter in self.adapters):
            return "stay"
        return self.settings.engines.binding

    def _dispatcher(self) -> Dispatcher:
        settings, engines, classes = self.settings, len(self.adapters), len(self.class_names)
        policy = settings.policy
        if not isinstance(policy, Policy):
            self.binding = "stay"
            return Placed(policy.placement, engines, classes, clock=self.clock, seed=settings.seed)
        self.controller = Controller(
            settings.scenario,
            policy,
            engines,
            settings.replanning,
            stays=self.binding == "stay",
            now=self.clock(),
        )
        dispatcher = Gated(
            self.controller.tables,
            engines,
            self.batch_size,
            classes,
            binding=self.binding,
            estimator=self.controller.estimator,
            clock=self.clock,
            seed=settings.seed,
        )
        self.controller.steer(dispatcher)
        return dispatcher

    def _plan_for_those_up(self) -> None:
        if self.controller is not None:
            self.controller.engines_are(sum(self.monitor.up), self.clock())

    def _admit(self, ticket: Ticket) -> None:
        """Let a request in, to start or to wait.

        Raises:
            ApiError: it would have to wait, and too many do; or nobody is served.
        """
        if self.draining:
            raise unavailable("shutting_down", "the gateway is shutting down")
        if not self.any_up:
            raise unavailable("no_engine", "no engine answers")
        self.dispatcher.enter(ticket)
        of_class, of_all = self.dispatcher.queued(ticket)
        limits, cls = self.settings, ticket.cls
        if of_class > limits.max_waiting[cls] or of_all > limits.limits.max_waiting:
            self.dispatcher.leave(ticket)
            what = f"{of_class - 1} requests of class '{self.class_names[cls]}' wait already, {of_all - 1} in all"
            raise busy("queue_full", what, self.retry_after(cls))

    def _silence(self, ask: Ask) -> float:
        """The longest that an engine may say nothing: of a whole answer nothing is heard until its end."""
        seconds = self.settings.limits.token_seconds
        if ask.stream:
            return seconds
        return seconds + SLOWEST_TOKEN * (ask.output_limit or self.roll_call.context_length or LONGEST_ANSWER)

    def _engine_headers(self, traits: Traits) -> dict[str, str]:
        passed = ("traceparent", "tracestate", *self.settings.engines.pass_headers)
        return {name: values[0] for name in passed if (values := traits.header(name))}

    def _note_end(self, cls: int) -> None:
        ended = self._ended_at[cls]
        ended.append(self.clock())
        if len(ended) > 64:
            del ended[0]

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _follow_the_load(self, controller: Controller) -> None:
        while True:
            await asyncio.sleep(max(0.0, controller.replanner.next_look - self.clock()))
            try:
                await controller.look(self.clock())
            except Exception:
                log.exception("the plan could not be solved again; the one in force stays")


def client_max_wait(traits: Traits) -> float:
    """The longest wait that the client itself will bear, s; inf if it does not say.

    Raises:
        ApiError: it says what is no time.
    """
    given = traits.header(WAIT_HEADER)
    if not given:
        return math.inf
    try:
        seconds = float(given[0])
    except ValueError:
        seconds = math.nan
    if len(given) > 1 or not 0.0 <= seconds < math.inf:
        raise invalid(f"the header '{WAIT_HEADER}' must be a number of seconds", reason="invalid_header")
    return seconds


async def _until_gone(receive: Receive, journey: Journey) -> None:
    """Stop the journey when its client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    journey.stop(ClientGone())


def adapters_of(settings: GatewaySettings, connections: Connections) -> list[Adapter]:
    """One adapter an engine, in the order of the file."""
    engines = settings.engines
    headers = {} if settings.engine_key is None else {"authorization": f"Bearer {settings.engine_key}"}
    adapters: list[Adapter] = []
    for url in engines.urls:
        match engines.kind:
            case "vllm":
                adapters.append(Vllm(url, connections=connections, headers=headers, lease=engines.kv_lease))
            case "vllm-coupled":
                adapters.append(VllmCoupled(url, connections=connections, headers=headers))
            case "llamacpp":
                assert settings.slot_dir is not None
                folder = settings.slot_dir
                adapters.append(LlamaCpp(url, connections=connections, headers=headers, slot_folder=folder))
    return adapters
