"""The HTTP side of a gateway, composed: each part gets what it needs of the gateway, and no more."""

from __future__ import annotations

from fluidgate.gateway.client.admission import Admission
from fluidgate.gateway.client.app import App
from fluidgate.gateway.client.classifier import Classifier
from fluidgate.gateway.client.completions import Completions
from fluidgate.gateway.client.keyring import Keyring
from fluidgate.gateway.client.pages import Pages
from fluidgate.gateway.client.prompt_meter import PromptMeter
from fluidgate.gateway.client.quotas import Quotas
from fluidgate.gateway.client.service import Service
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
        names, gpu = settings.scenario.class_names, settings.scenario.gpu
        meter = PromptMeter(settings.tokens.bytes_per_token, settings.tokenizer)
        self._metrics = Metrics(names, settings.scenario.pricing, gateway.snapshot)
        self._request_log = RequestLog(settings.server.log)
        self.tenants = Tenants(settings.keys, names, gateway.dispatcher.waiting_of)
        self._metrics.registry.register(self.tenants)
        quotas = Quotas(self.tenants, gateway.clock)
        admission = Admission(
            gateway.dispatcher,
            gateway.backends,
            class_names=names,
            limits=settings.limits,
            max_waiting=settings.max_waiting,
            draining=lambda: gateway.draining,
            clock=gateway.clock,
            max_waiting_of=quotas.max_waiting_of,
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
            mean_output=[each.output_tokens for each in settings.scenario.classes],
            quotas=quotas,
            engines=settings.engines,
            ended=self._ended,
        )
        pages = Pages(
            gateway.backends,
            admission,
            scrape=self._metrics.scrape,
            snapshot=gateway.snapshot,
            started=gateway.started,
        )
        self.app = App(Keyring(settings.keys), self._completions, pages, self.refused)

    def refused(self, request: RefusedRequest) -> None:
        """A request has been refused on arrival."""
        self._metrics.refused(request)
        self.tenants.refused(request)
        self._request_log.refused(request)

    def break_off(self) -> None:
        """End what is still under way, each with an error of its own."""
        self._completions.break_off()

    def close(self) -> None:
        self._request_log.close()

    def _ended(self, request: EndedRequest) -> None:
        self._metrics.ended(request)
        self.tenants.ended(request)
        self._request_log.ended(request)
