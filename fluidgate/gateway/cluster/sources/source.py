"""What a source of engines is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class SourceError(Exception):
    """The source can't be read now: who was there is thought to be there still."""


class Source(ABC):
    """Names engines.

    Attributes:
        origin: how engines say where they are from.
    """

    origin: str

    @abstractmethod
    async def urls(self) -> Sequence[str]:
        """Base URLs of the engines that are there now, without `/v1`.

        Raises:
            SourceError: it can't be read.
        """

    async def close(self) -> None:  # noqa: B027
        """It is read no more."""


class Listed(Source):
    """The engines of the gateway file itself."""

    origin = "file"

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(urls)

    async def urls(self) -> Sequence[str]:
        return self._urls
