"""Those whom the gateway serves, by API key: what each may use, has under way, and has used so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluidgate.gateway.ended import EndedRequest, RefusedRequest
from fluidgate.gateway.gateway_file import Key
from fluidgate.gateway.quota_table import KeyLimits


class Tenant:
    """The holder of a key.

    Attributes:
        under_way: requests that have been let in and have not ended.
        requests: that have ended, by class and outcome; `prompt_tokens` and `output_tokens` used, by class.
        refusals: on arrival, by reason.
    """

    def __init__(self, name: str, limits: KeyLimits, class_names: Sequence[str]) -> None:
        self.name = name
        self.limits = limits
        self.under_way = 0
        self.requests: Counter[tuple[str, str]] = Counter({(cls, "completed"): 0 for cls in class_names})
        self.prompt_tokens: Counter[str] = Counter(dict.fromkeys(class_names, 0))
        self.output_tokens: Counter[str] = Counter(dict.fromkeys(class_names, 0))
        self.refusals: Counter[str] = Counter()

    def ended(self, request: EndedRequest) -> None:
        used = tokens_used(request)
        prompt, output = (request.prompt_tokens, 0) if used is None else used
        self.requests[request.class_name, request.outcome] += 1
        self.prompt_tokens[request.class_name] += prompt
        self.output_tokens[request.class_name] += output


class Tenants:
    """The books of all keys of the gateway file; a collector for Prometheus. Nothing is kept of other keys."""

    def __init__(self, keys: Sequence[Key], class_names: Sequence[str], waiting_of: Callable[[str], int]) -> None:
        """
        Args:
            class_names: that are there from the first scrape on.
            waiting_of: how many requests of a key wait for a prefill.
        """
        self.waiting_of = waiting_of
        self._class_names = class_names
        self._tenants: dict[str, Tenant] = {}
        self.adopt(keys)

    def adopt(self, keys: Sequence[Key]) -> None:
        """Other keys and limits are in force; who stays keeps what was counted."""
        before, self._tenants = self._tenants, {}
        for key in keys:
            tenant = before.get(key.name) or Tenant(key.name, key.limits, self._class_names)
            tenant.limits = key.limits
            self._tenants[key.name] = tenant

    def get(self, name: str | None) -> Tenant | None:
        """None for a request without a key, or with one that is there no more."""
        return None if name is None else self._tenants.get(name)

    def ended(self, request: EndedRequest) -> None:
        if (tenant := self.get(request.key)) is not None:
            tenant.ended(request)

    def refused(self, request: RefusedRequest) -> None:
        if (tenant := self.get(request.key)) is not None:
            tenant.refusals[request.reason] += 1

    def keys(self) -> dict[str, dict[str, int]]:
        """What each key has under way, and has used so far, by its name."""
        return {
            name: {
                "running": self._running(tenant),
                "waiting": self.waiting_of(name),
                "requests": tenant.requests.total(),
                "prompt_tokens": tenant.prompt_tokens.total(),
                "output_tokens": tenant.output_tokens.total(),
                "refused": tenant.refusals.total(),
            }
            for name, tenant in self._tenants.items()
        }

    def collect(self) -> Iterator[Metric]:
        requests = _counter("key_requests", "Requests of a key by outcome", "key", "class", "outcome")
        prompt = _counter("key_prompt_tokens", "Prompt tokens that a key has used", "key", "class")
        output = _counter("key_output_tokens", "Output tokens that a key has used", "key", "class")
        refusals = _counter("key_refusals", "Requests of a key refused on arrival, by reason", "key", "reason")
        running = _gauge("key_running", "Requests of a key under way that do not wait for a prefill", "key")
        waiting = _gauge("key_waiting", "Requests of a key that wait for a prefill", "key")
        for name, tenant in self._tenants.items():
            for (cls, outcome), number in tenant.requests.items():
                requests.add_metric((name, cls, outcome), number)
            for family, tokens in ((prompt, tenant.prompt_tokens), (output, tenant.output_tokens)):
                for cls, number in tokens.items():
                    family.add_metric((name, cls), number)
            for reason, number in tenant.refusals.items():
                refusals.add_metric((name, reason), number)
            running.add_metric((name,), self._running(tenant))
            waiting.add_metric((name,), self.waiting_of(name))
        yield from (requests, prompt, output, refusals, running, waiting)

    def _running(self, tenant: Tenant) -> int:
        return max(0, tenant.under_way - self.waiting_of(tenant.name))


def tokens_used(request: EndedRequest) -> tuple[int, int] | None:
    """Tokens of prompt and answer that a key has used by a request; None if it used some that nobody has counted.

    Where nothing has reached the client by a fault that is not its own, it has used none.
    """
    if request.attempts == 0:
        return 0, 0
    counted = request.stream or request.output_tokens > 0
    if request.outcome in ("completed", "client_gone"):
        return (request.prompt_tokens, request.output_tokens) if counted else None
    return (request.prompt_tokens, request.output_tokens) if request.output_tokens > 0 else (0, 0)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"fluidgate_{name}", text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fluidgate_{name}", text, labels=labels)
