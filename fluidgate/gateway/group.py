"""Engines of one model behind the gateway: who looks after them, the dispatcher, and the plan it follows."""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import Any

from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.joining import Joining
from fluidgate.gateway.cluster.kv_listener import KvListener
from fluidgate.gateway.cluster.membership import Membership
from fluidgate.gateway.cluster.monitor import Monitor
from fluidgate.gateway.cluster.sources import DnsName, KubernetesService, Listed, Source, WatchedFile
from fluidgate.gateway.dispatch.averages import indicators_now
from fluidgate.gateway.dispatch.controller import Controller
from fluidgate.gateway.dispatch.dispatcher import Clock, Dispatcher
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.engines import Adapter, Connections, LlamaCpp, OpenAiCompatible, Sglang, Vllm, VllmCoupled
from fluidgate.gateway.gateway_file import GroupSettings
from fluidgate.gateway.prefixes import PrefixIndex
from fluidgate.model import Scenario
from fluidgate.policies import PlacedPolicy, Policy
from fluidgate.policies.placed import criteria_of, prefill_rate

NOWHERE = "http://localhost"
"""The URL of an engine that is asked nothing."""

IDLE_SECONDS = 0.1
"""Time between two looks at whether a group is idle."""


class ModelGroup:
    """Engines that serve one model, and all that decides on them. It runs in the event loop in which it is made.

    Composed of parts, none of which knows it.

    Attributes:
        backends: the engines.
        dispatcher: the state of the cluster, and the moves of the policy.
        prefixes: where the beginnings of prompts are; None where that is not looked for.
        controller: the plan; None for a policy that reads none.
        monitor: keeps `backends` up to date, and tells the dispatcher.
        membership: says which engines there are.
        binding: when a decode's engine is chosen: "late", "early", "stay" or (each is one side of pairs) "pairs".
        under_way: requests that it is serving.
    """

    def __init__(self, settings: GroupSettings, connections: Connections, *, clock: Clock = time.monotonic) -> None:
        """
        Raises:
            FluidgateError: the scenario has no plan.
        """
        self.settings = settings
        self.clock = clock
        self.under_way = 0
        self._adapter_of = partial(adapter_of, settings, connections)
        self.binding = binding_of(settings, self._adapter_of(NOWHERE))
        self.backends = Backends([], slots_of(settings.scenario), settings.model)
        self.controller: Controller | None = None
        self.prefixes = prefixes_of(settings)
        self.dispatcher = self._dispatcher()
        transfer = self.binding != "stay" and settings.engines.check_transfer
        self._joining = Joining(self.backends, settings.source, transfer=transfer)
        self._listener = self._kv_listener()
        self.monitor = Monitor(
            self.backends,
            self.dispatcher,
            self._joining,
            resized=self._plan_for,
            clock=clock,
            seconds=settings.engines.check_seconds,
            prefixes=self.prefixes,
            listener=self._listener,
        )
        self.membership = Membership(
            self.backends,
            self.monitor,
            sources_of(settings),
            adapter_of=self._adapter_of,
            seconds=settings.engines.refresh_seconds,
        )
        self._following: asyncio.Task[None] | None = None

    async def start(self, *, patient: bool = False, alone: bool = True) -> None:
        """Find the engines, check them, and begin to look after them.

        Args:
            patient: whether to wait for each until it has answered or failed to.
            alone: whether nobody else serves the model, so that an engine must be there.

        Raises:
            FluidgateError: no engine is fit, one can't serve what the scenario says, or KV does not move.
        """
        await self.membership.first()
        await self.backends.start()
        await self._joining.first(patient=patient, required=alone and not self.membership.changes)
        await self.monitor.first_look()
        self.monitor.start()
        self.membership.start()
        if self.controller is not None and self.settings.replanning is not None:
            self._following = asyncio.create_task(self.controller.follow(self.clock))

    async def adopt(self, settings: GroupSettings) -> None:
        """Take over settings that differ lightly: the engines of the file come and go."""
        self.settings = settings
        await self.membership.replace(Listed, Listed(settings.engines.urls))

    async def until_idle(self) -> None:
        """Until nothing is under way."""
        while self.under_way:
            await asyncio.sleep(IDLE_SECONDS)

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.membership.stop()
        await self.monitor.stop()
        if self._listener is not None:
            await self._listener.close()
        await self.backends.close()

    def two_legs(self, stream: bool) -> bool:
        """Whether a request is read by one call and answered by another."""
        if isinstance(self.dispatcher, Placed):
            return False
        if self.binding == "stay":
            return not stream and self.backends.take_two_legs
        return True

    def snapshot(self) -> dict[str, Any]:
        """The plan in force and the engines now, for /v1/plan, the metrics and `fluidgate watch`."""
        now, counts, settings = self.clock(), self.dispatcher.counts(), self.settings
        shares = settings.shares
        return {
            "model": settings.name,
            "models": list(self.backends.models),
            "shares": None if shares is None else dict(zip(settings.scenario.class_names, shares, strict=True)),
            "scenario": settings.scenario.name,
            "policy": settings.policy.name,
            "binding": self.binding,
            "batch_size": slots_of(settings.scenario),
            "plan": None if self.controller is None else self.controller.to_dict(now),
            "classes": {
                name: {
                    "prefill": int(counts.prefilling[i]),
                    "prefill_queue": int(counts.waiting[i]),
                    "mixed_decode": int(counts.mixed_decodes[i]),
                    "solo_decode": int(counts.solo_decodes[i]),
                    "decode_queue": int(counts.buffered[i]),
                }
                for i, name in enumerate(settings.scenario.class_names)
            },
            "indicators": self._indicators(),
            "prefixes": None if self.prefixes is None else {"hash_seconds": self.prefixes.hash_seconds},
            "engines": [
                {
                    "url": engine.url,
                    "state": engine.state,
                    "why": engine.why or None,
                    "since": now - engine.since if engine.since > -math.inf else None,
                    "origin": engine.origin,
                    "downs": dict(engine.downs),
                    "role": (state := self.dispatcher.state(engine.place)).role,
                    "prefills": state.prefills,
                    "decodes": state.decodes,
                    "foreign": state.foreign,
                    "kv_usage": None if engine.load is None else engine.load.kv_usage,
                    "prefixes": None if self.prefixes is None else self.prefixes.snapshot(engine.place),
                }
                for engine in self.backends
            ],
        }

    def _indicators(self) -> dict[str, Any]:
        """What the scenario may limit, and what it has been of late."""
        if not isinstance(self.dispatcher, Gated):
            return {}
        gpus = self.dispatcher.fleet.up * self.settings.scenario.engine.data_parallel
        return indicators_now(self.settings.scenario, self.dispatcher.averages(), gpus)

    def _kv_listener(self) -> KvListener | None:
        port = self.settings.prefixes.kv_events_port
        if self.prefixes is None or port is None:
            return None
        return KvListener(self.prefixes, port, self.settings.scenario.engine.data_parallel, self.backends.lower_on_host)

    def _dispatcher(self) -> Dispatcher:
        settings, places = self.settings, self.backends.capacity
        scenario, policy, binding = settings.scenario, settings.policy, self.binding
        classes = len(scenario.class_names)
        if isinstance(policy, PlacedPolicy):
            ttft = min((target for target in scenario.ttft_targets if target is not None), default=math.inf)
            return Placed(
                policy.placement,
                places,
                classes,
                clock=self.clock,
                seed=settings.seed,
                criteria=criteria_of(policy, prefill_rate(scenario, policy.batching), ttft),
                prefixes=self.prefixes,
            )
        engines = max(1, len(settings.engines.urls))
        self.controller = Controller(
            scenario,
            policy,
            engines,
            settings.replanning,
            stays=binding == "stay",
            pairs=binding == "pairs",
            group=settings.name,
            now=self.clock(),
        )
        dispatcher = Gated(
            self.controller.tables,
            places,
            slots_of(scenario),
            classes,
            kv_tokens=kv_tokens_of(scenario),
            binding=binding,
            functions=policy.functions,
            estimator=self.controller.estimator,
            clock=self.clock,
            seed=settings.seed,
            prefixes=self.prefixes,
        )
        self.controller.steer(dispatcher)
        return dispatcher

    def _plan_for(self, engines: int) -> None:
        """So many are up."""
        if self.controller is not None:
            self.controller.resize(engines, self.clock())


def slots_of(scenario: Scenario) -> int:
    """Requests that an engine has in its batches at a time: behind its URL are all ranks that step together."""
    return scenario.gpu.batch_size * scenario.engine.data_parallel


def kv_tokens_of(scenario: Scenario) -> int | None:
    """Tokens of the KV memory of an engine, all its ranks taken together; None for no limit."""
    known = scenario.engine.kv_tokens
    return None if known is None else known * scenario.engine.data_parallel


READ_REUSE = frozenset({"lmetric", "sticky", "precise", "cache-aware", "least-prefill"})
"""Rules of placement that ask where a prompt's beginning is."""


def prefixes_of(settings: GroupSettings) -> PrefixIndex | None:
    """What is known of the beginnings of prompts, where the file wants it or else where the policy can use it: under a
    rule that asks, or a gate, which counts with what is still to be read."""
    policy, table = settings.policy, settings.prefixes
    wanted = table.enabled
    if wanted is None:
        wanted = policy.placement in READ_REUSE if isinstance(policy, PlacedPolicy) else True
    if not wanted:
        return None
    return PrefixIndex(
        table.kv_tokens,
        usual=kv_tokens_of(settings.scenario),
        bytes_per_token=settings.bytes_per_token,
        by_counters=isinstance(policy, PlacedPolicy),
    )


def binding_of(settings: GroupSettings, example: Adapter) -> str:
    """When a decode's engine is chosen, as far as the policy and such engines can follow the gateway file."""
    if isinstance(settings.policy, Policy) and example.abilities.pairs:
        return "pairs"
    if not isinstance(settings.policy, Policy) or not example.abilities.late:
        return "stay"
    return settings.engines.binding


def adapter_of(settings: GroupSettings, connections: Connections, url: str) -> Adapter:
    """The adapter of an engine."""
    engines = settings.engines
    headers = {} if settings.engine_key is None else {"authorization": f"Bearer {settings.engine_key}"}
    match engines.kind:
        case "vllm":
            return Vllm(url, connections=connections, headers=headers, lease=engines.kv_lease)
        case "vllm-coupled":
            return VllmCoupled(url, connections=connections, headers=headers)
        case "openai":
            return OpenAiCompatible(url, connections=connections, headers=headers)
        case "sglang":
            return Sglang(url, connections=connections, headers=headers, pairs=engines.binding == "early")
        case "llamacpp":
            assert settings.slot_dir is not None
            return LlamaCpp(url, connections=connections, headers=headers, slot_folder=settings.slot_dir)


def sources_of(settings: GroupSettings) -> list[Source]:
    """Where the engines of a group are named, those of the file first."""
    engines = settings.engines
    sources: list[Source] = [Listed(engines.urls)]
    if settings.engines_file is not None:
        sources.append(WatchedFile(settings.engines_file))
    if engines.dns is not None:
        sources.append(DnsName(engines.dns))
    if engines.kubernetes is not None:
        sources.append(KubernetesService(engines.kubernetes))
    return sources
