"""Requests that cost an engine next to nothing, such as /tokenize: they hold no slot and wait for no gate."""

from __future__ import annotations

from collections.abc import Iterator

from fluidgate.gateway.client.api_error import ApiError, busy, unavailable
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.cluster.engine import Engine
from fluidgate.gateway.engines import Call, EngineRefused, EngineUnreachable

MOST = 256
"""At a time: engines do them beside their real work."""

PASSED = range(400, 500)


class PassingBy:
    """Hands a request to the engines that are up, one after another, until one answers; none is blamed."""

    def __init__(self) -> None:
        self._under_way = 0
        self._next = 0

    async def serve(self, service: Service, call: Call, response: Response) -> None:
        """Answer one request.

        Raises:
            ApiError: no engine answers, or too many such requests are under way.
        """
        service.admission.check_open()
        if self._under_way >= MOST:
            raise busy("queue_full", f"{MOST} requests for {call.path} and its like are under way", 1.0)
        self._under_way += 1
        try:
            await self._serve(service, call, response)
        finally:
            self._under_way -= 1

    async def _serve(self, service: Service, call: Call, response: Response) -> None:
        why: Exception | None = None
        for engine in self._turns(service, str(call.body.get("model") or "")):
            try:
                async with engine.adapter.pass_by(call) as answer:
                    body = await answer.read()
            except EngineRefused as refused:
                why = refused
                if refused.status in PASSED or refused.status == 501:
                    await response.refuse(refused.status, refused.headers, refused.body)
                    return
            except EngineUnreachable as error:
                why = error
            else:
                await response.whole(answer.status, answer.headers, body)
                return
        raise unavailable("no_engine", "no engine answers") if why is None else _failed(why)

    def _turns(self, service: Service, model: str) -> Iterator[Engine]:
        """Engines that are up and serve the model, another first each time; as many as a prompt is tried on."""
        engines = [each for each in service.backends if each.up and (not model or model in each.models)]
        self._next += 1
        for k in range(min(len(engines), service.attempts)):
            yield engines[(self._next + k) % len(engines)]


def _failed(why: Exception) -> ApiError:
    return unavailable("engine_failed", f"no engine answered ({why})")
