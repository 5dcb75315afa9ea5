"""Groups that serve one model together: which of them a request goes to."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from random import Random

from fluidgate.errors import FluidgateError
from fluidgate.gateway.cluster.joining import causes
from fluidgate.gateway.group import ModelGroup

log = logging.getLogger("fluidgate.gateway")


class Sharing:
    """Draws a group for each request, by the shares of its class. A session goes by its name, and so stays together.

    Where engines of a group are down, its shares fall with them; where all are that have any, others take its requests.
    """

    def __init__(self, groups: Sequence[ModelGroup]) -> None:
        """
        Args:
            groups: all that serve one model.
        """
        self._groups = tuple(groups)
        self._random = Random(groups[0].settings.seed)
        self._stranded: set[int] = set()

    def check(self) -> None:
        """
        Raises:
            FluidgateError: no engine of any group is up, and none is to be found later.
        """
        if not any(group.backends.up_count or group.membership.changes for group in self._groups):
            source, names = self._groups[0].settings.source, ", ".join(group.settings.name for group in self._groups)
            why = causes({engine: engine.why for group in self._groups for engine in group.backends})
            raise FluidgateError(f"{source}: engines.urls: no engine of {names} is fit: {why}")

    def drawn(
        self, cls: int, tokens: int, session: str | None, serves: Callable[[ModelGroup], bool] = lambda group: True
    ) -> ModelGroup:
        """The group that takes a request of a class, of those that serve what it asks for and hold so many tokens."""
        self._tell(cls)
        groups = [group for group in self._groups if serves(group)] or self._groups
        groups = [group for group in groups if _holds(group, tokens)] or groups
        shares = [_share(group, cls) for group in groups]
        up = [group.backends.up_count for group in groups]
        there = [share * _up_share(group) for share, group in zip(shares, groups, strict=True)]
        weights = there if any(there) else [float(count) for count in up] if any(up) else shares
        at = sum(weights) * (self._random.random() if session is None else place_of(session))
        chosen = groups[0]
        for group, weight in zip(groups, weights, strict=True):
            if weight:
                chosen, at = group, at - weight
            if at < 0.0:
                break
        return chosen

    def _tell(self, cls: int) -> None:
        """Log it when the requests of a class begin to go where none of them should, and when they no longer do."""
        sharing = [group for group in self._groups if _share(group, cls)]
        stranded = bool(sharing) and not any(group.backends.any_up for group in sharing)
        if stranded == (cls in self._stranded):
            return
        name = self._groups[0].settings.scenario.class_names[cls]
        having = ", ".join(group.settings.name for group in sharing)
        if stranded:
            self._stranded.add(cls)
            log.warning("no engine of %s is up: class '%s' goes to whatever group of its model is", having, name)
        else:
            self._stranded.discard(cls)
            log.info("class '%s' goes to %s again", name, having)


def place_of(session: str) -> float:
    """Of a session among all of them, from 0 to 1, the same in every gateway."""
    digest = hashlib.blake2b(session.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def _share(group: ModelGroup, cls: int) -> float:
    return 0.0 if group.settings.shares is None else group.settings.shares[cls]


def _up_share(group: ModelGroup) -> float:
    """Engines that are up, of those that the shares were made for."""
    named = len(group.settings.engines.urls) or len(group.backends)
    return group.backends.up_count / named if named else 0.0


def _holds(group: ModelGroup, tokens: int) -> bool:
    length = group.backends.context_length
    return length is None or tokens <= length
