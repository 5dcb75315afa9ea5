"""The gateway as one event after the other."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson

from fluidgate.gateway.rates import History, Reading
from fluidgate.gateway.samples import Samples

SCHEMA = 1


class Readings:
    """Reads the gateway again and again, and remembers enough to tell rates."""

    def __init__(
        self,
        snapshots: Callable[[], list[dict[str, Any]]],
        samples: Callable[[], Samples],
        keys: Callable[[], dict[str, dict[str, int]]] | None = None,
    ) -> None:
        """
        Args:
            snapshots: gives the engines now, as `Gateway.snapshots`.
            samples: gives what was counted, as `Metrics.samples`.
            keys: gives what each API key has used, by its name; None where keys are not counted.
        """
        self._snapshots = snapshots
        self._samples = samples
        self._keys = keys
        self._histories: defaultdict[str, History] = defaultdict(History)

    def __call__(self) -> bytes:
        """The next one, as JSON."""
        at, samples = time.monotonic(), self._samples()
        event: dict[str, Any] = {"schema": SCHEMA, "time": time.time()}
        event["groups"] = [self._with_rates(Reading(at, state, samples)) for state in self._snapshots()]
        if self._keys is not None:
            event["keys"] = self._keys()
        return orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY)

    def _with_rates(self, reading: Reading) -> dict[str, Any]:
        history = self._histories[reading.state["model"]]
        history.add(reading)
        rates = history.rates
        return reading.state | {"rates": None if rates is None else rates.to_dict()}
