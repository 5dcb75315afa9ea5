"""The gateway behind its HTTP side: engines, who looks after them, the dispatcher, and the plan it follows."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from fluidgate.gateway.cluster.backends import Backends
from fluidgate.gateway.cluster.joining import Joining
from fluidgate.gateway.cluster.monitor import Monitor
from fluidgate.gateway.dispatch.averages import indicators_now
from fluidgate.gateway.dispatch.controller import Controller
from fluidgate.gateway.dispatch.dispatcher import Dispatcher
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.gateway.engines import Adapter, Connections, LlamaCpp, Vllm, VllmCoupled
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.policies import PlacedPolicy, Policy

SCHEMA = 1


class Gateway:
    """Composed of parts, none of which knows it. All run in one event loop, which runs when it is made.

    Attributes:
        backends: the engines.
        dispatcher: the state of the cluster, and the moves of the policy.
        controller: the plan; None for a policy that reads none.
        monitor: keeps `backends` up to date, and tells the dispatcher.
        binding: when a decode's engine is chosen: "late", "early" or "stay".
        started: epoch, s.
        draining: whether new requests are refused.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        """
        Raises:
            FluidgateError: the scenario has no plan.
        """
        self.settings = settings
        self.clock = time.monotonic
        self._connections = Connections(silence=settings.limits.token_seconds)
        self.backends = Backends(
            adapters_of(settings, self._connections), settings.scenario.gpu.batch_size, settings.model
        )
        self.binding = binding_of(settings, self.backends)
        self.controller: Controller | None = None
        self.dispatcher = self._dispatcher()
        transfer = self.binding != "stay" and settings.engines.check_transfer
        self._joining = Joining(self.backends, settings.source, transfer=transfer)
        self.monitor = Monitor(
            self.backends,
            self.dispatcher,
            self._joining,
            resized=self._plan_for,
            clock=self.clock,
            seconds=settings.engines.check_seconds,
        )
        self.started = time.time()
        self.draining = False
        self._following: asyncio.Task[None] | None = None

    async def start(self, *, patient: bool = False) -> None:
        """Find the engines, check them, and begin to look after them.

        Args:
            patient: whether to wait for each until it has answered or failed to.

        Raises:
            FluidgateError: no engine answers, an engine can't serve what the scenario says, or KV does not move.
        """
        await self.backends.start()
        await self._joining.first(patient=patient)
        await self.monitor.first_look()
        self.monitor.start()
        if self.controller is not None and self.settings.replanning is not None:
            self._following = asyncio.create_task(self.controller.follow(self.clock))

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self.monitor.stop()
        await self.backends.close()
        await self._connections.close()

    def drain(self) -> None:
        """Take nothing new."""
        self.draining = True

    def two_legs(self, stream: bool) -> bool:
        """Whether a request is read by one call and answered by another."""
        if isinstance(self.dispatcher, Placed):
            return False
        if self.binding == "stay":
            return not stream and self.backends.take_two_legs
        return True

    def snapshot(self) -> dict[str, Any]:
        """The plan in force and the cluster now, for /v1/plan, the metrics and `fluidgate watch`."""
        now, counts, settings = self.clock(), self.dispatcher.counts(), self.settings
        return {
            "schema": SCHEMA,
            "scenario": settings.scenario.name,
            "policy": settings.policy.name,
            "binding": self.binding,
            "batch_size": settings.scenario.gpu.batch_size,
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
                for i, name in enumerate(settings.scenario.class_names)
            },
            "indicators": self._indicators(),
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
                }
                for engine in self.backends
            ],
        }

    def _indicators(self) -> dict[str, Any]:
        """What the scenario may limit, and what it has been of late."""
        if not isinstance(self.dispatcher, Gated):
            return {}
        return indicators_now(self.settings.scenario, self.dispatcher.averages(), self.dispatcher.fleet.up)

    def _dispatcher(self) -> Dispatcher:
        settings, places = self.settings, self.backends.capacity
        scenario, policy, stays = settings.scenario, settings.policy, self.binding == "stay"
        classes = len(scenario.class_names)
        if isinstance(policy, PlacedPolicy):
            return Placed(policy.placement, places, classes, clock=self.clock, seed=settings.seed)
        engines = max(1, len(self.backends))
        self.controller = Controller(scenario, policy, engines, settings.replanning, stays=stays, now=self.clock())
        dispatcher = Gated(
            self.controller.tables,
            places,
            scenario.gpu.batch_size,
            classes,
            kv_tokens=scenario.engine.kv_tokens,
            binding=self.binding,
            functions=policy.functions,
            estimator=self.controller.estimator,
            clock=self.clock,
            seed=settings.seed,
        )
        self.controller.steer(dispatcher)
        return dispatcher

    def _plan_for(self, engines: int) -> None:
        """So many are up."""
        if self.controller is not None:
            self.controller.resize(engines, self.clock())


def binding_of(settings: GatewaySettings, backends: Backends) -> str:
    """When a decode's engine is chosen, as far as the policy and the engines can follow the gateway file."""
    if not isinstance(settings.policy, Policy) or not backends.move_kv:
        return "stay"
    return settings.engines.binding


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
