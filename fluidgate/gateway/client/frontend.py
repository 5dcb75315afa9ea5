"""The HTTP side of a gateway, composed: each part gets what it needs of the gateway, and no more."""

from __future__ import annotations

from fluidgate.gateway.client.admission import Admission
from fluidgate.gateway.client.app import App
from fluidgate.gateway.client.classifier import Classifier
from fluidgate.gateway.client.completions import Completions
from fluidgate.gateway.client.cors import Cors
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.pages import Pages
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.service import Service
from fluidgate.gateway.ended import EndedRequest, RefusedRequest
from fluidgate.gateway.gateway import Gateway
from fluidgate.gateway.gateway_file import GatewaySettings
from fluidgate.gateway.metrics import Metrics
from fluidgate.gateway.request_log import RequestLog


class Frontend:
    """What clients reach.

    Attributes:
        app: the ASGI application.
    """

    def __init__(self, settings: GatewaySettings, gateway: Gateway) -> None:
        """
        Raises:
            FluidgateError: a file of the settings can't be used.
        """
        names, gpu = settings.scenario.class_names, settings.scenario.gpu
        tokens = settings.tokens
        meter = PromptMeter(tokens.bytes_per_token, settings.tokenizer, media=tokens.media)
        self._metrics = Metrics(names, settings.scenario.pricing, gateway.snapshot)
        self._request_log = RequestLog(settings.server.log)
        admission = Admission(
            gateway.dispatcher,
            gateway.backends,
            class_names=names,
            limits=settings.limits,
            max_waiting=settings.max_waiting,
            draining=lambda: gateway.draining,
            clock=gateway.clock,
        )
        service = Service(
            dispatcher=gateway.dispatcher,
            backends=gateway.backends,
            monitor=gateway.monitor,
            admission=admission,
            two_legs=gateway.two_legs,
            prefill_seconds=gpu.prefill_seconds,
            attempts=settings.limits.attempts,
            clock=gateway.clock,
        )
        self._completions = Completions(
            service,
            meter,
            Classifier(settings.rules, names, settings.default_class),
            class_names=names,
            limits=settings.limits,
            max_wait=settings.max_wait,
            engines=settings.engines,
            ping_seconds=settings.server.ping_seconds,
            ended=self._ended,
        )
        pages = Pages(
            gateway.backends,
            admission,
            scrape=self._metrics.scrape,
            snapshot=gateway.snapshot,
            started=gateway.started,
        )
        cors = Cors(settings.server.cors_origins)
        self.app = App(Keyring(settings.keys), self._completions, pages, cors, self.refused)

    def refused(self, request: RefusedRequest) -> None:
        """A request has been refused before it was of any class."""
        self._metrics.refused(request)
        self._request_log.refused(request)

    def break_off(self) -> None:
        """End what is still under way, each with an error of its own."""
        self._completions.break_off()

    def close(self) -> None:
        self._request_log.close()

    def _ended(self, request: EndedRequest) -> None:
        self._metrics.ended(request)
        self._request_log.ended(request)
