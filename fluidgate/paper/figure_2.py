"""Figure 2: revenue and queues over time under bundled and under separate pricing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fluidgate import plan, simulate
from fluidgate.model import Array, Scenario, Scheme
from fluidgate.paper.instances import two_class
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.reports.picture import Picture
from fluidgate.reports.plots import style
from fluidgate.simulation.statistics import Statistic, statistic
from fluidgate.trajectory import Trajectory

TITLE = "Revenue and queues over time, bundled and separate pricing"
POLICY: dict[Scheme, str] = {"bundled": "gate-and-route", "separate": "prioritize-and-route"}
BACKLOG = 10.0
"""How many times the bundled decode queue the separate one must be to count as a backlog."""


def run(setting: Setting) -> Outcome:
    gpus, horizon = setting.sized(500, 100), setting.sized(600.0, 200.0)
    frames = []
    with style():
        figure = Picture(figsize=(10, 5.5), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey="row")
        tail: dict[str, Statistic] = {}
        for k, scheme in enumerate(POLICY):
            scenario = two_class(scheme)
            best = plan(scenario)
            result = simulate(
                scenario,
                POLICY[scheme],
                gpus=gpus,
                horizon=horizon,
                warmup=horizon / 2,
                fidelity="markov",
                **setting.where,
                samples=301,
                replications=setting.sized(5, 2),
            )
            path = result.trajectory
            assert path is not None
            revenue = revenue_rate(scenario, path)
            money, queues = panels[:, k]
            money.plot(path.time, revenue, lw=1)
            money.axhline(best.revenue_rate, color="black", ls=":", label="R*")
            money.set_title(f"{scheme}: {POLICY[scheme]}", loc="left")
            for i, name in enumerate(scenario.class_names):
                queues.plot(path.time, path.prefill_queue[:, i], color=f"C{i}", lw=1, label=f"{name}, prefill queue")
                queues.plot(path.time, path.decode_queue[:, i], color=f"C{i}", ls="--", label=f"{name}, decode queue")
            queues.set_xlabel("time, s")
            tail[scheme] = statistic(np.sum([c.decode_queue.values for c in result.classes], axis=0))
            frames.append(as_frame(scenario, scheme, path, revenue))
        panels[0, 0].set_ylabel("revenue /s per GPU")
        panels[1, 0].set_ylabel("requests per GPU")
        panels[0, 0].legend()
        handles, labels = panels[1, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    target = float(plan(two_class("separate")).decode_queue.sum())
    verdict = Verdict(
        "the separate scheme builds a decode backlog, the bundled one does not",
        f"mean decode queue per GPU over the second half: separate {said(tail['separate'])} (plan {target:.3g}), "
        f"bundled {said(tail['bundled'])} (plan 0), n = {gpus}",
        (tail["separate"].mean or 0.0) > BACKLOG * (tail["bundled"].mean or 0.0),
    )
    notes = (
        "In the limit the separate plan keeps a decode queue on purpose and the bundled one keeps none. At this size "
        "the printed gate builds one under bundled pricing too, nearly as long, for the reason that the item `scale` "
        "shows. So the difference can only be seen where the cluster is far larger.",
    )
    return Outcome(pd.concat(frames, ignore_index=True), (verdict,), figure, notes)


def said(value: Statistic) -> str:
    low, high = value.ci95 or (float("nan"), float("nan"))
    return f"{value.mean:.3f} ({low:.3f} to {high:.3f})"


def revenue_rate(scenario: Scenario, path: Trajectory) -> Array:
    """Revenue per GPU and second that the occupancies earn, (21)-(23): rates times occupancies, shape (samples,)."""
    rates = scenario.rates
    done = path.mixed_decode * rates.mixed_decode + path.solo_decode * rates.solo_decode
    if scenario.pricing.scheme == "bundled":
        return np.asarray(done @ rates.bundled_value)
    return np.asarray((path.prefill * rates.prefill) @ rates.prompt_value + done @ rates.output_value)


def as_frame(scenario: Scenario, scheme: str, path: Trajectory, revenue: Array) -> pd.DataFrame:
    columns: dict[str, object] = {"scheme": scheme, "time": path.time, "revenue_rate": revenue}
    for i, name in enumerate(scenario.class_names):
        columns[f"prefill_queue {name}"] = path.prefill_queue[:, i]
        columns[f"decode_queue {name}"] = path.decode_queue[:, i]
    return pd.DataFrame(columns)
