"""The admin API: engines that come and go, and the gateway file read anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from fluidgate.errors import FluidgateError
from fluidgate.gateway.client.api_error import ApiError, invalid
from fluidgate.gateway.client.json_body import parsed_object
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.response import Response
from fluidgate.gateway.cluster.engine import Engine
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import is_base_url
from fluidgate.gateway.group import ModelGroup

PREFIX = "/admin/"
JSON = {"content-type": "application/json"}


class Admin:
    """Does what operators want, for who comes with the key of `[admin]`."""

    def __init__(self, gateway: Gateway, *, reload: Callable[[], Awaitable[None]]) -> None:
        """
        Args:
            reload: reads the gateway file anew, or raises FluidgateError.
        """
        self._gateway = gateway
        self._reload = reload

    def let_in(self, authorization: Sequence[str]) -> None:
        """
        Raises:
            ApiError: there is no admin API, or this is not its key.
        """
        key = self._gateway.settings.admin
        if key is None:
            raise ApiError(404, "not_found", "there is no admin API; give its key in the table [admin]")
        Keyring((key,)).holder(authorization)

    async def serve(self, method: str, path: str, raw: bytes, response: Response) -> None:
        """Answer one request.

        Raises:
            ApiError: there is no such order, it can't be carried out, or what it is about is not there.
        """
        match method, path.removeprefix(PREFIX):
            case "GET", "engines":
                await self._tell(response, self._engines())
            case "POST", "engines":
                group, url = self._wanted(parsed_object(raw))
                try:
                    engine = await group.membership.add(url)
                except OverflowError as error:
                    raise ApiError(409, "too_many_engines", str(error)) from None
                await self._tell(response, _about(group, engine), 201)
            case "POST", "engines/cordon" | "engines/uncordon" as order:
                group, engine = self._engine(parsed_object(raw))
                group.membership.cordon(engine, order == "engines/cordon")
                await self._tell(response, _about(group, engine))
            case "POST", "engines/drain":
                body = parsed_object(raw)
                group, engine = self._engine(body)
                group.membership.cordon(engine, True)
                if body.get("wait"):
                    await group.membership.empty(engine)
                await self._tell(response, _about(group, engine))
            case "POST", "engines/remove":
                group, engine = self._engine(parsed_object(raw))
                group.membership.remove(engine)
                await self._tell(response, _about(group, engine), 202)
            case "POST", "reload":
                try:
                    await self._reload()
                except FluidgateError as error:
                    raise ApiError(400, "invalid_gateway_file", f"{error} (what was in force stays)") from None
                await self._tell(response, self._engines())
            case _:
                raise ApiError(404, "not_found", f"no such order: {method} {path[:100]}")

    def _engines(self) -> dict[str, Any]:
        return {"engines": [_about(group, engine) for group in self._gateway.groups for engine in group.backends]}

    def _wanted(self, body: dict[str, Any]) -> tuple[ModelGroup, str]:
        """The group that an engine is to belong to, and its URL."""
        url, model = body.get("url"), body.get("model")
        if not isinstance(url, str) or not is_base_url(url) or url.rstrip("/").endswith("/v1"):
            raise invalid("'url' must be the base URL of an engine, such as http://127.0.0.1:8001", "url")
        groups = self._gateway.groups
        if model is None and len(groups) > 1:
            names = ", ".join(group.settings.name for group in groups)
            raise invalid(f"'model' must name one of {names}", "model")
        group = groups[0] if model is None else next((each for each in groups if each.settings.name == model), None)
        if group is None:
            raise ApiError(404, "model_not_found", f"no group is called '{str(model)[:100]}'", param="model")
        return group, url

    def _engine(self, body: dict[str, Any]) -> tuple[ModelGroup, Engine]:
        url = body.get("url")
        if not isinstance(url, str):
            raise invalid("'url' must be the base URL of an engine", "url")
        for group in self._gateway.groups:
            if (engine := group.backends.find(url)) is not None:
                return group, engine
        raise ApiError(404, "no_such_engine", f"no engine stands at {url[:200]}", param="url")

    async def _tell(self, response: Response, what: Any, status: int = 200) -> None:
        await response.whole(status, JSON, orjson.dumps(what))


def _about(group: ModelGroup, engine: Engine) -> dict[str, Any]:
    return {
        "url": engine.url,
        "model": group.settings.name,
        "state": engine.state,
        "why": engine.why or None,
        "origin": engine.origin,
        "holds": group.dispatcher.held(engine.place) + engine.handovers,
    }
