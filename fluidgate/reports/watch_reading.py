"""What a gateway says of itself: its state, and what its requests went through since it started."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

import aiohttp
import orjson

from fluidgate.errors import FluidgateError
from fluidgate.gateway.gateway_file import is_base_url
from fluidgate.gateway.rates import Reading
from fluidgate.gateway.samples import Samples
from fluidgate.no_answer import no_answer

ANSWER_SECONDS = 5.0


class Away(Exception):
    """The gateway does not answer now.

    Attributes:
        mend: what the user may do.
    """

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(reason)
        self.mend = mend


class GatewayReader:
    """Reads a gateway, over one connection or two; a context."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """
        Args:
            url: of the gateway, with or without `/v1`.
            key: sent as `Authorization: Bearer KEY`.

        Raises:
            FluidgateError: no URL, or no key that could be sent.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        if not is_base_url(self.url):
            raise FluidgateError(f"'{url}' is no URL of a gateway; give one such as 'http://127.0.0.1:8080'")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise FluidgateError("the key has characters that no header takes; give the gateway's key")
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def read(self) -> Reading:
        """
        Raises:
            Away: nobody answers, or not in time.
            FluidgateError: it asks for another key, or is no gateway.
        """
        try:
            plan, metrics = await asyncio.gather(self._get("/v1/plan"), self._get("/metrics"))
        except (TimeoutError, aiohttp.ClientError) as error:
            found = no_answer(error)
            raise Away(found.reason, found.mend) from None
        try:
            state = orjson.loads(plan)
            samples = Samples.parsed(metrics.decode())
        except ValueError:
            raise self._stranger() from None
        if not isinstance(state, dict) or not {"model", "engines", "classes", "plan"} <= state.keys():
            raise self._stranger()
        return Reading(time.monotonic(), state, samples)

    async def _get(self, path: str) -> bytes:
        async with self._session.get(self.url + path, allow_redirects=False) as answer:
            if answer.status == 401:
                raise FluidgateError(f"{self.url} asks for a key; name the variable that holds one: --key-env NAME")
            if answer.status >= 500:
                raise Away(f"it answers {answer.status}", "see its log")
            if answer.status != 200:
                raise self._stranger()
            return await answer.read()

    def _stranger(self) -> FluidgateError:
        return FluidgateError(f"{self.url} is no fluidgate gateway; give the URL that `fluidgate serve` prints")
