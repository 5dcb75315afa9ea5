"""What a gateway says of itself: its state, and what its requests went through since it started."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fluidgate.errors import FluidgateError
from fluidgate.gateway.gateway_file import is_base_url

ANSWER_SECONDS = 5.0


class Away(Exception):
    """The gateway does not answer now."""


class Scrape:
    """The samples of a scrape.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, text: str) -> None:
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append(sample)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Sums of the samples `name` with these labels, by the value of one more."""
        sums: defaultdict[str, float] = defaultdict(float)
        for sample in self._samples[name]:
            if all(sample.labels.get(key) == value for key, value in labels.items()):
                sums[sample.labels.get(label, "")] += sample.value
        return dict(sums)


@dataclass(frozen=True)
class Reading:
    """A gateway at one epoch.

    Attributes:
        at: s, of `time.monotonic`.
        state: its /v1/plan.
        scrape: its /metrics.
    """

    at: float
    state: dict[str, Any]
    scrape: Scrape


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
        except TimeoutError:
            raise Away(f"no answer within {ANSWER_SECONDS:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise Away(os.strerror(error.errno).lower() if error.errno else "no connection") from None
        except aiohttp.ClientError as error:
            raise Away(str(error) or type(error).__name__) from None
        try:
            state = orjson.loads(plan)
            scrape = Scrape(metrics.decode())
        except ValueError:
            raise self._stranger() from None
        if not isinstance(state, dict) or not {"engines", "classes", "plan"} <= state.keys():
            raise self._stranger()
        return Reading(time.monotonic(), state, scrape)

    async def _get(self, path: str) -> bytes:
        async with self._session.get(self.url + path, allow_redirects=False) as answer:
            if answer.status == 401:
                raise FluidgateError(f"{self.url} asks for a key; name the variable that holds one: --key-env NAME")
            if answer.status >= 500:
                raise Away(f"it answers {answer.status}")
            if answer.status != 200:
                raise self._stranger()
            return await answer.read()

    def _stranger(self) -> FluidgateError:
        return FluidgateError(f"{self.url} is no fluidgate gateway; give the URL that `fluidgate serve` prints")
