"""Events made of snapshots and counters by hand."""

from __future__ import annotations

import json

from fluidgate.gateway.client.dashboard import Readings
from fluidgate.gateway.samples import Samples
from tests.reports.gateway import metrics, state


def test_each_group_has_rates_of_its_own() -> None:
    names = ("served", "another")
    text = [metrics()]
    readings = Readings(lambda: [state(model=name) for name in names], lambda: Samples.parsed(text[0]))
    first = json.loads(readings())
    assert [group["rates"] for group in first["groups"]] == [None, None]
    text[0] = metrics(chat={"completed": 5.0}) + metrics(code={"timeout": 2.0}, model="another")
    served, another = json.loads(readings())["groups"]
    assert (served["model"], another["model"]) == names
    assert round(served["rates"]["classes"]["chat"]["completions"] * served["rates"]["seconds"]) == 5
    assert served["rates"]["classes"]["code"]["outcomes"] == {}
    assert another["rates"]["classes"]["code"]["outcomes"] == {"timeout": 2}
    assert another["rates"]["classes"]["chat"]["completions"] == 0.0


def test_keys_are_told_where_they_are_counted() -> None:
    used = {"ours": {"running": 1, "waiting": 0, "requests": 7}}
    readings = Readings(lambda: [state()], lambda: Samples([]), lambda: used)
    assert json.loads(readings())["keys"] == used
