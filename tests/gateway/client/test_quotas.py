"""What keys may use, by a clock that a test moves."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluidgate.gateway.client.api_error import ApiError
from fluidgate.gateway.client.bucket import Bucket
from fluidgate.gateway.client.quotas import Grant, Quotas, duration
from fluidgate.gateway.gateway_file import Key
from fluidgate.gateway.quota_table import KeyLimits
from fluidgate.gateway.tenants import Tenants, tokens_used
from tests.gateway.fakes import ended_request


class Door:
    """A gateway with one key, "team"."""

    def __init__(self, **limits: int) -> None:
        self.now = 100.0
        self.tenants = Tenants([Key("team", b"", KeyLimits(**limits))], ("chat",), lambda key: 0)
        self.quotas = Quotas(self.tenants, lambda: self.now)

    def limit(self, **limits: int) -> None:
        self.tenants.adopt([Key("team", b"", KeyLimits(**limits))])

    def admit(self, prompt: int = 10, output: int = 10, key: str | None = "team") -> Grant:
        return self.quotas.admit(key, "chat", prompt, output)

    def end(self, grant: Grant, **changes: object) -> None:
        self.quotas.end(grant, ended_request(**changes))

    def refused(self, prompt: int = 10, output: int = 10) -> ApiError:
        with pytest.raises(ApiError) as raised:
            self.admit(prompt, output)
        return raised.value


def test_a_minutes_requests_at_once_and_then_evenly() -> None:
    door = Door(requests_per_minute=30)
    for left in range(29, -1, -1):
        assert door.admit().headers["x-ratelimit-remaining-requests"] == str(left)
    error = door.refused()
    assert (error.status, error.reason, error.headers["retry-after"]) == (429, "quota_requests", "2")
    assert "key 'team'" in error.message
    assert "class 'chat'" in error.message
    assert error.headers["x-ratelimit-limit-requests"] == "30"
    assert error.headers["x-ratelimit-reset-requests"] == "1m0s"
    door.now += 1.99
    door.refused()
    door.now += 0.01
    door.admit()
    door.refused()
    door.now += 3600.0
    for _ in range(30):
        door.admit()
    door.refused()


def test_tokens_are_charged_as_allowed_and_set_right_by_what_was_used() -> None:
    door = Door(tokens_per_minute=600)
    grant = door.admit(100, 400)
    assert grant.headers["x-ratelimit-remaining-tokens"] == "100"
    error = door.refused(100, 20)
    assert (error.status, error.reason, error.headers["retry-after"]) == (429, "quota_tokens", "2")
    assert "100 of its 600 tokens a minute" in error.message
    door.end(grant, prompt_tokens=110, output_tokens=40)
    assert door.admit(1, 1).headers["x-ratelimit-remaining-tokens"] == str(600 - 150 - 2)


def test_more_may_be_used_than_was_charged_and_is_paid_for() -> None:
    door = Door(tokens_per_minute=600)
    door.end(door.admit(100, 100), prompt_tokens=400, output_tokens=800)
    assert door.refused(1, 1).headers["retry-after"] == str(math.ceil((1200 - 600 + 2) / 10))


def test_what_a_quota_can_never_give_is_no_matter_of_waiting() -> None:
    door = Door(tokens_per_minute=600, requests_per_minute=5)
    error = door.refused(300, 301)
    assert (error.status, error.reason) == (400, "quota_exceeded")
    assert "never has more than 600" in error.message
    assert "retry-after" not in error.headers
    assert door.admit(300, 300).headers["x-ratelimit-remaining-requests"] == "4", "it counted as nothing"


def test_requests_under_way() -> None:
    door = Door(max_concurrent=2, requests_per_minute=100)
    first, _ = door.admit(), door.admit()
    error = door.refused()
    assert (error.status, error.reason) == (429, "quota_concurrent")
    assert "key 'team' has 2 requests under way" in error.message
    assert "class 'chat'" in error.message
    door.end(first)
    third = door.admit()
    door.quotas.withdraw(third)
    assert third.headers["x-ratelimit-remaining-requests"] == "98"
    assert door.tenants.keys()["team"]["running"] == 1
    door.admit()


def test_one_limit_that_refuses_leaves_the_others_untouched() -> None:
    door = Door(requests_per_minute=10, tokens_per_minute=100)
    door.admit(50, 40)
    headers = door.refused(50, 40).headers
    assert (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-remaining-tokens"]) == ("9", "10")


def test_who_has_no_quota_is_told_of_none() -> None:
    door = Door()
    for key in ("team", "another", None):
        assert door.admit(1 << 40, 1 << 40, key).headers == {}
    assert door.tenants.keys()["team"]["running"] == 1
    assert door.quotas.weight_of(None) == door.quotas.weight_of("another") == 1.0


def test_limits_that_change_keep_what_was_used() -> None:
    door = Door(requests_per_minute=10, tokens_per_minute=1000)
    under_way = [door.admit() for _ in range(8)]
    door.limit(requests_per_minute=9)
    headers = door.admit().headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-limit-tokens" not in headers
    for grant in under_way:
        door.end(grant)
    assert door.tenants.keys()["team"]["running"] == 1
    door.tenants.adopt([])
    assert door.admit().headers == {}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=60),
)
def test_a_bucket_is_a_minutes_worth_that_comes_back_evenly(per_minute: int, arrivals: list[tuple[int, int]]) -> None:
    """Against the definition: in no window of t s are more than a minute's and t s' worth taken, and whoever is
    refused is taken at the very moment that it was told."""
    bucket, now, taken = Bucket(per_minute), 0.0, deque[tuple[float, int]]()
    for seconds, amount in arrivals:
        now += seconds
        wait = bucket.wait(amount, now)
        if amount > per_minute:
            assert wait == math.inf
            continue
        room = min(
            (per_minute + per_minute * (now - since) / 60.0 - sum(n for epoch, n in taken if epoch >= since))
            for since in [now, *(epoch for epoch, _ in taken)]
        )
        assert (wait == 0.0) == (amount <= room + 1e-6)
        if wait > 0.0:
            assert wait == pytest.approx((amount - room) * 60.0 / per_minute)
            assert bucket.wait(amount, now + 0.999 * wait) > 0.0
            now += wait
            assert bucket.wait(amount, now) == 0.0
        bucket.take(amount, now)
        taken.append((now, amount))


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, (100, 5)),
        ({"outcome": "wait_limit", "attempts": 0, "output_tokens": 0}, (0, 0)),
        ({"outcome": "client_gone", "attempts": 0, "output_tokens": 0}, (0, 0)),
        ({"outcome": "client_gone", "output_tokens": 3}, (100, 3)),
        ({"outcome": "client_gone", "output_tokens": 0}, (100, 0)),
        ({"outcome": "client_gone", "output_tokens": 0, "stream": False}, None),
        ({"output_tokens": 0, "stream": False}, None),
        ({"output_tokens": 7, "stream": False}, (100, 7)),
        ({"outcome": "engine_failed", "output_tokens": 0}, (0, 0)),
        ({"outcome": "engine_failed", "output_tokens": 2}, (100, 2)),
        ({"outcome": "engine_refused", "output_tokens": 0, "stream": False}, (0, 0)),
    ],
)
def test_what_a_request_has_used(changes: dict[str, object], used: tuple[int, int] | None) -> None:
    assert tokens_used(ended_request(**changes)) == used


def test_what_nobody_has_counted_stays_charged() -> None:
    door = Door(tokens_per_minute=600)
    door.end(door.admit(100, 400), stream=False, outcome="client_gone", output_tokens=0)
    assert door.admit(1, 1).headers["x-ratelimit-remaining-tokens"] == "98"


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.0, "0ms"), (0.02, "20ms"), (1.5, "1.5s"), (59.9996, "1m0s"), (360.0, "6m0s")]
)
def test_durations_are_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written
