"""Whose fault it was: the request's, an engine's, or the gateway's own; and where the request goes next."""

from __future__ import annotations

from dataclasses import dataclass

from fluidgate.gateway.client.api_error import ApiError, unavailable
from fluidgate.gateway.client.end_points import MISSING
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.cluster.engine import Engine
from fluidgate.gateway.dispatch.ticket import Ticket
from fluidgate.gateway.engines import EngineRefused, EngineSilent, EngineUnreachable, KvLost

BUSY = (408, 425, 429, 503)
"""What an engine answers that can't take a request now."""

UNKNOWN_KEY = (401, 403)

REFUSERS = 2
"""So many engines must have refused a request alike for it to be at fault."""

LOOK_SECONDS = 1.0
"""How long a request whose engine broke off waits to hear whether the engine is there still, s."""


@dataclass(frozen=True)
class Verdict:
    """What follows.

    Attributes:
        final: what the engine said is the client's.
        aside: the engine that is asked next, whole and without the policy's leave; None for where the policy says.
    """

    final: bool = False
    aside: Engine | None = None


class FaultFinder:
    """Follows one request.

    An engine that refuses a part of a request (one leg of two) is asked the whole: what it says then is what it would
    have said to the client. What two engines refuse is the request's fault, and no engine is blamed; where the second
    serves it, the first has failed. Engines that break off under a request are blamed at once, and the request is
    given up when it has met with that too often: it may be what kills them.
    """

    def __init__(self, service: Service, request: str, model: str, ticket: Ticket, *, everywhere: bool) -> None:
        """
        Args:
            request: its id.
            everywhere: whether every engine has its end point.
        """
        self._everywhere = everywhere
        self._service = service
        self._request = request
        self._model = model
        self._ticket = ticket
        self._refused: dict[Engine, EngineRefused] = {}
        self._broken: list[Engine] = []
        self._fell_out: list[tuple[Engine, Engine]] = []

    def only_place(self) -> Engine | None:
        """The engine to go to where not all that are up serve the model; None if they do.

        Raises:
            ApiError: none does.
        """
        having = self._service.backends.only(self._model)
        if having is None or (having and having[0].adapter.abilities.pairs):
            return None
        if not having:
            raise ApiError(404, "model_not_found", f"no engine serves '{self._model[:100]}' now", param="model")
        return self._emptiest(having)

    async def of_refusal(self, refused: EngineRefused, engine: Engine, *, own_words: bool) -> Verdict:
        """
        Raises:
            ApiError: the engines refuse the gateway itself, or it has been tried too often.
        """
        service, status = self._service, refused.status
        if status in UNKNOWN_KEY and not service.passes_keys:
            return self._refused_the_gateway(refused, engine)
        if status == 404 and not await service.monitor.serves(engine, self._model):
            self._check_attempts(refused)
            return Verdict(aside=self.only_place())
        if not own_words and engine.answers:
            return Verdict(aside=engine)
        if status in MISSING and not self._everywhere:
            return Verdict(final=True)
        if 400 <= status < 500 and status not in BUSY:
            return Verdict(final=True)
        self._refused[engine] = refused
        other = self._another(engine)
        given_up = engine.adapter.abilities.pairs and self._tried_enough
        if other is None or len(self._refused) >= REFUSERS or given_up:
            return Verdict(final=True)
        return self._to(other, refused)

    async def of_lost_kv(self, lost: KvLost, engine: Engine, *, heard: int, company: int) -> Verdict:
        """
        Args:
            heard, company: as in `of_broken`.

        Raises:
            ApiError: the engine is just slow, or it has been tried too often.
        """
        cause = lost.__cause__
        if isinstance(cause, EngineUnreachable):
            return await self.of_broken(cause, engine, heard=heard, company=company)
        self._check_attempts(lost)
        if isinstance(cause, EngineRefused) and engine.answers:
            return self._to(engine, lost)
        return Verdict(aside=self.only_place())

    async def of_broken(self, error: EngineUnreachable, engine: Engine, *, heard: int, company: int) -> Verdict:
        """
        Args:
            heard: of the engine when it was asked.
            company: requests that waited for its first word at the end, this one among them.

        Raises:
            ApiError: the engine is just slow, or it has been tried too often.
        """
        self._bear_silence(error, engine, heard, company)
        await self._blame(error, engine)
        if error.taken:
            self._broken.append(engine)
        if len(self._broken) >= self._service.engine_failures:
            raise ApiError(502, "engine_failed", f"{len(self._broken)} engines failed within this request ({error})")
        self._check_attempts(error)
        if engine.up and (other := self._another(engine)) is not None:
            return self._to(other, error)
        return Verdict(aside=self.only_place())

    async def of_cut(self, error: EngineUnreachable, engine: Engine) -> None:
        """The engine has broken off an answer that the client has begun to read."""
        if not isinstance(error, EngineSilent):
            await self._blame(error, engine)

    def fell_out(self, reader: Engine, writer: Engine) -> None:
        """The two of a pair did not come together, which may be either's fault."""
        self._fell_out.append((reader, writer))

    def served_by(self, engine: Engine, reader: Engine | None = None) -> None:
        """An engine has served it, of a prompt that `reader` has read: those that refused the same have failed, and of
        a pair that fell out the one that is not of this."""
        monitor = self._service.monitor
        monitor.served(engine)
        for pair in self._fell_out:
            others = [each for each in pair if each not in (reader, engine)]
            if len(others) == 1:
                monitor.failed(others[0], self._request, "the KV did not get from one engine of a pair to the other")
        self._fell_out.clear()
        for other, refused in self._refused.items():
            if other not in (engine, reader):
                monitor.failed(other, self._request, f"status {refused.status}: {_text(refused)}")
        self._refused.clear()

    def _refused_the_gateway(self, refused: EngineRefused, engine: Engine) -> Verdict:
        """An engine does not know the key that the gateway has for it: that is not for clients to mend."""
        self._refused[engine] = refused
        other = self._another(engine)
        if other is None or len(self._refused) >= self._service.attempts:
            said = f"{engine.url} does not know the gateway's key (status {refused.status})"
            raise ApiError(502, "engine_refused_gateway", said)
        return self._to(other, refused)

    def _bear_silence(self, error: EngineUnreachable, engine: Engine, heard: int, company: int) -> None:
        """A silent engine that answers others meanwhile is slow; so is one that answers looks, if nobody else waits
        for it in vain.

        Raises:
            ApiError: it is slow rather than stuck.
        """
        failed, _ = engine.health.counts(self._service.clock())
        slow = engine.adapter.heard != heard or (engine.load is not None and company <= 1 and failed == 0)
        if isinstance(error, EngineSilent) and slow:
            raise ApiError(504, "engine_silent", f"{error}; it may be reading still, so no other engine is asked")

    async def _blame(self, error: EngineUnreachable, engine: Engine) -> None:
        monitor = self._service.monitor
        if not error.taken:
            monitor.refused(engine, str(error))
            return
        monitor.failed(engine, self._request, str(error))
        await monitor.look_now(engine, LOOK_SECONDS)

    def _to(self, engine: Engine, error: Exception) -> Verdict:
        """To this engine, whole. Where a request takes two, they are for the policy to choose."""
        if not engine.adapter.abilities.pairs:
            return Verdict(aside=engine)
        self._check_attempts(error)
        return Verdict()

    def _another(self, engine: Engine) -> Engine | None:
        """An engine that is up, does what `engine` does, serves the model, and has not been tried in vain; that with
        the fewest requests."""
        tried, role = {*self._refused, *self._broken}, engine.role
        backends = self._service.backends
        return self._emptiest(
            [each for each in backends if each.up and each.role == role and each not in tried and self._serves(each)]
        )

    def _serves(self, engine: Engine) -> bool:
        return self._model in engine.models

    def _emptiest(self, engines: list[Engine]) -> Engine | None:
        return min(engines, key=lambda each: self._service.dispatcher.held(each.place), default=None)

    @property
    def _tried_enough(self) -> bool:
        return self._ticket.attempts >= self._service.attempts

    def _check_attempts(self, error: Exception) -> None:
        if self._tried_enough:
            said = f"gave up after {self._ticket.attempts} attempts ({error})"
            raise unavailable("kv_lost" if isinstance(error, KvLost) else "engine_failed", said)


def _text(refused: EngineRefused) -> str:
    return refused.body[:200].decode(errors="replace")
