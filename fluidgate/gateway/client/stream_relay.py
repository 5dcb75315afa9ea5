"""A stream on its way from an engine to a client."""

from __future__ import annotations

from collections.abc import Callable

from fluidgate.gateway.client.response import Response
from fluidgate.gateway.engines import Answer, EngineUnreachable
from fluidgate.gateway.engines.answers import Gathered
from fluidgate.gateway.engines.sse import UsageDropper, token_counter


class StreamRelay:
    """Hands a stream on as it comes, from its first token on, all but its end.

    Until the first token nothing is sent, so that the engine may fail without the client's knowledge.

    Attributes:
        counter: what has come so far: tokens, the end, an error.
    """

    def __init__(
        self,
        response: Response,
        path: str,
        *,
        begins: Callable[[int], None],
        drop_usage: bool,
        said: Gathered | None = None,
    ) -> None:
        """
        Args:
            path: of the end point, which says how tokens are told.
            begins: called with the number of tokens just before the first byte is sent.
            said: gathers what the answer says; None where nobody asks.
            drop_usage: whether the event that states the usage is kept from the client.
        """
        self.counter = token_counter(path)
        self.counter.said = said
        self._response = response
        self._begins = begins
        self._dropper = UsageDropper() if drop_usage else None

    @property
    def rest(self) -> bytes:
        """What is still to be sent, to end with."""
        return b"" if self._dropper is None else self._dropper.rest

    async def run(self, answer: Answer) -> None:
        """Until the engine says no more.

        Raises:
            EngineUnreachable: the connection broke before the stream's end.
        """
        counter, response, dropper, held = self.counter, self._response, self._dropper, b""
        try:
            async for chunk in answer.chunks():
                counter.feed(chunk)
                chunk = chunk if dropper is None else dropper.feed(chunk)
                if not chunk:
                    continue
                if response.begun:
                    await response.more(chunk)
                    continue
                held += chunk
                if counter.tokens or (counter.finished and not counter.failed):
                    self._begins(counter.tokens)
                    await response.begin(answer.status, answer.headers)
                    await response.more(held)
        except EngineUnreachable:
            if not counter.finished:
                raise
