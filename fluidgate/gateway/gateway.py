"""The gateway behind its HTTP side: groups of engines that come and go as its file says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Container, Sequence
from typing import Any

from fluidgate.gateway.engines import Connections
from fluidgate.gateway.gateway_file import GatewaySettings, GroupSettings
from fluidgate.gateway.group import ModelGroup
from fluidgate.gateway.shares import Sharing

log = logging.getLogger("fluidgate.gateway")

SCHEMA = 1


class Gateway:
    """All groups of engines.

    Attributes:
        settings: the file in force.
        groups: one a model, or several that share it, in the order of the file.
        started: epoch, s.
        draining: whether a load balancer should send nothing more; `closed`, whether new requests are refused.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        """
        Raises:
            FluidgateError: a scenario has no plan.
        """
        self.settings = settings
        self.clock = time.monotonic
        self._connections = Connections(silence=settings.limits.token_seconds)
        self.groups = [ModelGroup(each, self._connections) for each in settings.groups]
        self._sharing = sharing_of(self.groups)
        self.started = time.time()
        self.draining = False
        self.closed = False
        self._retiring: set[asyncio.Task[None]] = set()

    async def start(self, *, patient: bool = False) -> None:
        """Find the engines, check them, and begin to look after them.

        Args:
            patient: whether to wait for each until it has answered or failed to.

        Raises:
            FluidgateError: a group has no engine that is fit, one can't serve what the scenario says, or KV does not
                move.
        """
        await asyncio.gather(*(_start(group, patient=patient) for group in self.groups))
        for sharing in self._sharing.values():
            sharing.check()

    async def close(self) -> None:
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for group in self.groups:
            await group.close()
        await self._connections.close()

    async def adopt(self, settings: GatewaySettings) -> None:
        """Follow another file. Requests under way end under the settings that they began with.

        Raises:
            FluidgateError: a new group does not start; nothing has changed then.
        """
        kept: dict[str, ModelGroup] = {}
        for each in settings.groups:
            old = next((group for group in self.groups if group.settings.name == each.name), None)
            if old is not None and old.settings.differs_lightly(each):
                kept[each.name] = old
        served = {group.settings.model for group in kept.values()}
        new = await self._started([each for each in settings.groups if each.name not in kept], served)
        groups = [kept.get(each.name) or new[each.name] for each in settings.groups]
        for each in settings.groups:
            if each.name in kept:
                await kept[each.name].adopt(each)
        retired = [group for group in self.groups if group not in groups]
        self.groups, self.settings = groups, settings
        self._sharing = sharing_of(groups)
        for group in retired:
            log.info("group %s retires once its %d requests have ended", group.settings.name, group.under_way)
            self._retire(group)

    def find(self, model: str) -> tuple[ModelGroup, str] | None:
        """The group that serves a model, and what its engines call it; None if none does.

        A request without a model is of the first group. A group none of whose engines has said yet what it serves may
        serve anything.
        """
        if not model:
            return self.groups[0], model
        for group in self.groups:
            if (known := _known_as(group, model)) is not None:
                return group, known
        unknown = (group for group in self.groups if not group.backends.models)
        return next(((group, model) for group in unknown), None)

    def drawn(
        self, found: tuple[ModelGroup, str], asked: str, cls: int, tokens: int, session: str | None
    ) -> tuple[ModelGroup, str]:
        """The group that takes a request of a class and so many tokens, of those that share the model of the one that
        was found for what is asked, and what its engines call that. An adapter may be on some of them alone."""
        sharing = self._sharing.get(found[0].settings.name)
        if sharing is None:
            return found
        chosen = sharing.drawn(cls, tokens, session, lambda group: _known_as(group, asked) is not None)
        return chosen, _known_as(chosen, asked) or found[1]

    @property
    def class_names(self) -> list[str]:
        """Of all groups, each once."""
        return list(dict.fromkeys(name for group in self.groups for name in group.settings.scenario.class_names))

    def waiting_of(self, key: str) -> int:
        """How many requests of a key wait for a prefill, over all groups."""
        return sum(group.dispatcher.waiting_of(key) for group in self.groups)

    def drain(self) -> None:
        """Let load balancers know that it will leave."""
        self.draining = True

    def close_door(self) -> None:
        """Take nothing new."""
        self.draining = self.closed = True

    @property
    def up_count(self) -> int:
        """Engines that take requests, over all groups."""
        return sum(group.backends.up_count for group in self.groups)

    def snapshots(self) -> list[dict[str, Any]]:
        """The plan in force and the engines now, of each group."""
        whole = {"schema": SCHEMA, "uptime": time.time() - self.started, "draining": self.draining}
        return [whole | group.snapshot() for group in self.groups]

    async def _started(self, wanted: list[GroupSettings], served: Container[str | None]) -> dict[str, ModelGroup]:
        """New groups, all of which run, or none does; some models are served without them."""
        made = {each.name: ModelGroup(each, self._connections) for each in wanted}
        try:
            for group in made.values():
                await _start(group)
            for name, sharing in sharing_of(list(made.values())).items():
                if made[name].settings.model not in served:
                    sharing.check()
        except BaseException:
            for group in made.values():
                await group.close()
            raise
        return made

    def _retire(self, group: ModelGroup) -> None:
        async def away() -> None:
            try:
                await group.until_idle()
            finally:
                await group.close()

        task = asyncio.create_task(away())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _start(group: ModelGroup, *, patient: bool = False) -> None:
    """A group that shares its model may lack its engines: others serve what would go there."""
    await group.start(patient=patient, alone=group.settings.shares is None)


def _known_as(group: ModelGroup, model: str) -> str | None:
    """What the engines of a group call a model that clients ask for; None if they do not serve it."""
    models = group.backends.models
    if model in group.settings.aliases and models:
        return models[0]
    return model if model in models else None


def sharing_of(groups: Sequence[ModelGroup]) -> dict[str, Sharing]:
    """Of groups that share a model, by the name of each."""
    together: dict[str | None, list[ModelGroup]] = {}
    for group in groups:
        if group.settings.shares is not None:
            together.setdefault(group.settings.model, []).append(group)
    return {group.settings.name: sharing for each in together.values() for sharing in [Sharing(each)] for group in each}
