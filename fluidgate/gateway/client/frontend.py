"""The HTTP side of a gateway, composed: each part gets what it needs of the gateway, and no more."""

from __future__ import annotations

import asyncio

from fluidgate.gateway.client.admin import Admin
from fluidgate.gateway.client.app import App
from fluidgate.gateway.client.classifier import Header
from fluidgate.gateway.client.completion_request import CompletionRequest
from fluidgate.gateway.client.completions import Completions
from fluidgate.gateway.client.cors import Cors
from fluidgate.gateway.client.dashboard import Feed, LiveStream, Readings
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.pages import Pages
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.quotas import Quotas
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.client.tracing import Tracing
from fluidgate.gateway.ended import EndedRequest, RefusedRequest
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.gateway.metrics import Metrics
from fluidgate.gateway.request_log import RequestLog
from fluidgate.gateway.tenants import Tenants


class Frontend:
    """What clients reach.

    Attributes:
        app: the ASGI application.
        tenants: the books of API keys.
    """

    def __init__(self, settings: GatewaySettings, gateway: Gateway) -> None:
        """
        Raises:
            FluidgateError: a file of the settings can't be used.
        """
        self._gateway = gateway
        self._metrics = Metrics(gateway.snapshots)
        self._request_log = RequestLog(settings.server.log)
        self._services: dict[str, Service] = {}
        ping = settings.server.ping_seconds
        self._tracing = None if settings.tracing is None else Tracing(settings.tracing)
        self.tenants = Tenants(settings.keys, gateway.class_names, gateway.waiting_of)
        self._metrics.registry.register(self.tenants)
        self._quotas = Quotas(self.tenants, gateway.clock)
        self._completions = Completions(
            self._find,
            self._drawn,
            self._meter(settings),
            settings.limits,
            ping,
            quotas=self._quotas,
            tracing=self._tracing,
            ended=self._ended,
        )
        keys = self.tenants.keys if settings.keys else None
        self._feed = Feed(lambda: Readings(gateway.snapshots, self._metrics.samples, keys))
        pages, live = Pages(gateway, scrape=self._metrics.scrape), LiveStream(self._feed)
        admin, cors = Admin(gateway, reload=self.reload), Cors(settings.server.cors_origins)
        self.app = App(Keyring(settings.keys), admin, self._completions, pages, live, cors, self.refused)
        self._serve_groups()

    async def reload(self) -> None:
        """Read the gateway file anew and follow it. A wrong one is refused, and that in force stays.

        Raises:
            FluidgateError: it is wrong, or what it asks for can't be had.
        """
        read = self._gateway.settings.reload
        if read is None:
            return
        settings = read()
        meter = self._meter(settings)
        await self._gateway.adopt(settings)
        self._completions.adopt(meter, settings.limits, settings.server.ping_seconds)
        self.tenants.adopt(settings.keys)
        self.app.keyring, self.app.cors = Keyring(settings.keys), Cors(settings.server.cors_origins)
        self._feed.end()  # keys may have gone
        self._serve_groups()

    def reopen_log(self) -> None:
        """Write on in a new file of the same name: the old one has been moved away."""
        self._request_log.reopen()

    def refused(self, request: RefusedRequest) -> None:
        """A request has been refused on arrival."""
        self._metrics.refused(request)
        self.tenants.refused(request)
        self._request_log.refused(request)

    @property
    def under_way(self) -> int:
        """Requests that are being served."""
        return self._completions.under_way

    def break_off(self) -> None:
        """End what is still under way, each with an error of its own."""
        self._completions.break_off()
        self._feed.close()

    async def close(self) -> None:
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        self._request_log.close()

    def _meter(self, settings: GatewaySettings) -> PromptMeter:
        tokens = settings.tokens
        return PromptMeter(tokens.bytes_per_token, settings.tokenizer, media=tokens.media)

    def _serve_groups(self) -> None:
        gateway = self._gateway
        self._services = {
            group.settings.name: Service.of(
                group, lambda: gateway.closed, self._quotas.max_waiting_of, gateway.waiting_of
            )
            for group in gateway.groups
        }
        for name, service in self._services.items():
            self._metrics.expect(name, service.class_names)

    def _find(self, model: str) -> tuple[Service, str] | None:
        """What serves a model, and what the engines call it; of "", which is any, the first group."""
        found = self._gateway.find(model) if model else (self._gateway.groups[0], model)
        return None if found is None else (self._services[found[0].settings.name], found[1])

    def _drawn(
        self, service: Service, model: str, request: CompletionRequest, cls: int, header: Header
    ) -> tuple[Service, str]:
        """What takes a request of a class, of the groups that share its model, and what the engines call that."""
        named = self._gateway.settings.session_header
        session = header(named)[:1] if named is not None else ()
        tokens = (request.longest_ids or request.prompt_tokens) + (request.output_limit or 0)
        by = cls, tokens, session[0] if session else None
        group, model = self._gateway.drawn((service.group, model), request.model, *by)
        return self._services[group.settings.name], model

    def _ended(self, request: EndedRequest) -> None:
        self._metrics.ended(request)
        self.tenants.ended(request)
        self._request_log.ended(request)
