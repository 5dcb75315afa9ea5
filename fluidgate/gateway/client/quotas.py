"""What each API key may use: requests and tokens a minute, and requests under way."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fluidgate.gateway.client.api_error import ApiError, busy, invalid
from fluidgate.gateway.client.bucket import Bucket
from fluidgate.gateway.dispatch.dispatcher import Clock
from fluidgate.gateway.ended import EndedRequest
from fluidgate.gateway.quota_table import KeyLimits
from fluidgate.gateway.tenants import Tenant, Tenants, tokens_used


class Allowance:
    """What a key may still use of its limits."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self._limits = KeyLimits()
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.adopt()

    def adopt(self) -> None:
        """The limits in force; what was used before still counts."""
        limits = self.tenant.limits
        if limits != self._limits:
            self._limits = limits
            self.requests = _of_rate(self.requests, limits.requests_per_minute)
            self.tokens = _of_rate(self.tokens, limits.tokens_per_minute)

    def headers(self, now: float) -> dict[str, str]:
        """OpenAI's."""
        return {name: value for what, bucket in self._buckets() for name, value in _said(what, bucket, now)}

    def _buckets(self) -> Iterator[tuple[str, Bucket]]:
        if self.requests is not None:
            yield "requests", self.requests
        if self.tokens is not None:
            yield "tokens", self.tokens


class Grant:
    """A request that its key's quota has let in.

    Attributes:
        headers: for its answer.
    """

    def __init__(self, allowance: Allowance | None, tokens: int, now: float) -> None:
        self._allowance = allowance
        self._tokens = tokens
        self.headers: dict[str, str] = {}
        if allowance is None:
            return
        allowance.tenant.under_way += 1
        if allowance.requests is not None:
            allowance.requests.take(1, now)
        if allowance.tokens is not None:
            allowance.tokens.take(tokens, now)
        self.headers = allowance.headers(now)

    def withdraw(self, now: float) -> None:
        """It was refused all the same, and counts as nothing."""
        if self._allowance is not None:
            if self._allowance.requests is not None:
                self._allowance.requests.take(-1, now)
            self._end(0, now)
            self.headers = self._allowance.headers(now)

    def end(self, request: EndedRequest, now: float) -> None:
        """It has ended: of tokens it has used what was counted, or what it was charged where nobody has."""
        used = tokens_used(request)
        self._end(self._tokens if used is None else sum(used), now)

    def _end(self, used: int, now: float) -> None:
        if self._allowance is not None:
            self._allowance.tenant.under_way -= 1
            if self._allowance.tokens is not None:
                self._allowance.tokens.take(used - self._tokens, now)


class Quotas:
    """The quotas of all keys. A request costs O(1)."""

    def __init__(self, tenants: Tenants, clock: Clock) -> None:
        self._tenants = tenants
        self._clock = clock
        self._allowances: dict[str, Allowance] = {}

    def weight_of(self, key: str | None) -> float:
        """The key's share in a class."""
        tenant = self._tenants.get(key)
        return 1.0 if tenant is None else tenant.limits.weight

    def max_waiting_of(self, key: str) -> int | None:
        """How many requests of a key may wait for a prefill; None for no limit of its own."""
        tenant = self._tenants.get(key)
        return None if tenant is None else tenant.limits.max_waiting

    def admit(self, key: str | None, class_name: str, prompt: int, output: int) -> Grant:
        """Let a request of so many tokens in.

        Args:
            prompt: as estimated; `output`, as it may have at most, or as its class has on average.

        Raises:
            ApiError: its key has used up its quota, or has none for such a request.
        """
        now = self._clock()
        allowance = self._allowance(key)
        if allowance is not None:
            error = _refusal(allowance, class_name, prompt, output, now)
            if error is not None:
                error.headers |= allowance.headers(now)
                raise error
        return Grant(allowance, prompt + output, now)

    def withdraw(self, grant: Grant) -> None:
        grant.withdraw(self._clock())

    def end(self, grant: Grant, request: EndedRequest) -> None:
        grant.end(request, self._clock())

    def _allowance(self, key: str | None) -> Allowance | None:
        tenant = self._tenants.get(key)
        if tenant is None:
            return None
        allowance = self._allowances.get(tenant.name)
        if allowance is None or allowance.tenant is not tenant:
            allowance = self._allowances[tenant.name] = Allowance(tenant)
        allowance.adopt()
        return allowance


def _refusal(allowance: Allowance, class_name: str, prompt: int, output: int, now: float) -> ApiError | None:
    """Why a request is not let in, if it is not."""
    tenant, tokens, who = allowance.tenant, prompt + output, f"of class '{class_name}'"
    most = tenant.limits.max_concurrent
    if allowance.tokens is not None and tokens > allowance.tokens.per_minute:
        return invalid(
            f"a request {who} for {tokens} tokens ({prompt} of prompt, {output} of answer); key '{tenant.name}' never "
            f"has more than {allowance.tokens.per_minute}: send a shorter prompt, or a lower 'max_tokens'",
            reason="quota_exceeded",
        )
    if most is not None and tenant.under_way >= most:
        what = f"key '{tenant.name}' has {tenant.under_way} requests under way, of {most}; this one is {who}"
        return busy("quota_concurrent", what, 1.0)
    if allowance.requests is not None and (wait := allowance.requests.wait(1, now)) > 0.0:
        limit = allowance.requests.per_minute
        return busy(
            "quota_requests", f"key '{tenant.name}' has sent {limit} requests a minute; this one is {who}", wait
        )
    if allowance.tokens is not None and (wait := allowance.tokens.wait(tokens, now)) > 0.0:
        limit, left = allowance.tokens.per_minute, allowance.tokens.remaining(now)
        what = f"key '{tenant.name}' has {left} of its {limit} tokens a minute left; this request {who} is for {tokens}"
        return busy("quota_tokens", what, wait)
    return None


def _of_rate(bucket: Bucket | None, per_minute: int | None) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute)
    bucket.per_minute = per_minute
    return bucket


def _said(what: str, bucket: Bucket, now: float) -> Iterator[tuple[str, str]]:
    yield f"x-ratelimit-limit-{what}", str(bucket.per_minute)
    yield f"x-ratelimit-remaining-{what}", str(bucket.remaining(now))
    yield f"x-ratelimit-reset-{what}", duration(bucket.reset(now))


def duration(seconds: float) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
