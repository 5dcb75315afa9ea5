"""Figure 3: mixed iteration time against chunk size, and solo speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fluidgate.calibration import Calibration, calibrate, read_measurements
from fluidgate.model import TimeTable
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.profiles import Profile, find_profile, shipped
from fluidgate.reports.looks import marked
from fluidgate.reports.picture import Picture
from fluidgate.reports.plots import plain_ticks, style

TITLE = "Calibration: mixed iteration time against chunk size"
PAPER = ("a100-40gb/qwen-8b", "a100-40gb/qwen-4b")
MEASURED = "aiconfigurator_tau.csv"
CHUNKS = np.linspace(64, 2048, 32)
BATCH = 16
LINEAR = 0.98
LEAST_CHUNK = 256


def run(setting: Setting) -> Outcome:
    paper = [find_profile(name) for name in PAPER]
    tables = [profile for profile in shipped() if profile.iteration.table is not None]
    measured = beside(setting)
    data = pd.concat([lines([*paper, *tables]), speeds(tables)], ignore_index=True)
    least = min(straightness(profile) for profile in tables)
    falls = {profile.name: solo_speeds(profile) for profile in tables}
    name, (fast, *_, slow) = max(falls.items(), key=lambda item: item[1][0] / item[1][-1])
    verdicts = [
        Verdict(
            "the mixed iteration time is linear in the chunk size (R^2 0.997 and 0.998)",
            f"the paper prints no points, so its fits are taken as given; in {len(tables)} shipped profiles from "
            f"other measurements the least R^2 over all batch sizes is {least:.4f}, from {LEAST_CHUNK} tokens up",
            least >= LINEAR,
        ),
        Verdict(
            "the solo iteration time is constant, (2)",
            f"not over large batches: a decode of {name} runs at {fast:.0f} tokens/s at its least batch and at "
            f"{slow:.0f} at its largest",
            fast / slow < 1.1,
        ),
    ]
    if measured is not None:
        fit = measured.fits[0]
        verdicts.append(
            Verdict(
                "the calibration can be repeated from measurements",
                f"Qwen3 8B on A100, B = {BATCH}: alpha {fit.alpha.value:.4g} s, beta {fit.beta.value:.3g} "
                f"s/token, R^2 {fit.r_squared:.4f} (paper, another server and version: 0.0174, 6.2e-5)",
                None,
            )
        )
    notes = (
        "So alpha, beta and gamma belong to the batch size at which a cluster runs; the other shipped profiles hold "
        "the times themselves, over batch and chunk.",
    )
    return Outcome(data, tuple(verdicts), picture(paper, tables, measured), notes)


def beside(setting: Setting) -> Calibration | None:
    """A calibration from the measurements in the data folder, if they are there."""
    path = None if setting.data is None else Path(setting.data) / MEASURED
    if path is None or not path.is_file():
        return None
    rows = read_measurements(
        path,
        {"batch_size": "B", "chunk_size": "C", "seconds": "tau_ms"},
        unit="ms",
        where={"gpu": "a100_sxm", "backend": "vllm", "model": "Qwen/Qwen3-8B", "tp": "1"},
    )
    return calibrate(rows, name="a100/qwen3-8b", batch_size=BATCH)


def table_of(profile: Profile) -> TimeTable:
    table = profile.iteration.table
    assert table is not None
    return table


def straightness(profile: Profile) -> float:
    """The least R^2 of a line in the chunk size, from `LEAST_CHUNK` tokens up, over the batch sizes of a table.

    Where it has several, at the least context and number of tokens read before.
    """
    table = table_of(profile)
    chunks = np.array(table.mixed_axes[0])
    kept = chunks >= LEAST_CHUNK
    return float(min(np.corrcoef(chunks[kept], times)[0, 1] ** 2 for times in table.mixed_times[kept, :, 0, 0].T))


def solo_speeds(profile: Profile) -> list[float]:
    """Tokens/s of a decode without a prefill, by batch size."""
    return [float(1 / seconds) for seconds in table_of(profile).solo_times[:, 0]]


def lines(profiles: list[Profile]) -> pd.DataFrame:
    """The mixed iteration time of each profile at one batch size, at the context it was measured at, by chunk size."""
    rows = []
    for profile in profiles:
        law = profile.iteration
        context = BATCH * (law.table.contexts[0] if law.table is not None else 0.0)
        times = [law.mixed(c, BATCH, context) for c in CHUNKS]
        rows += [
            {"kind": "mixed", "profile": profile.name, "batch_size": BATCH, "chunk_size": c, "seconds": seconds}
            for c, seconds in zip(CHUNKS, times, strict=True)
        ]
    return pd.DataFrame(rows)


def speeds(profiles: list[Profile]) -> pd.DataFrame:
    """Solo iteration time of each profile by batch size."""
    return pd.DataFrame(
        [
            {"kind": "solo", "profile": profile.name, "batch_size": batch, "chunk_size": 0, "seconds": seconds}
            for profile in profiles
            for batch, seconds in zip(table_of(profile).solo_axes[0], table_of(profile).solo_times[:, 0], strict=True)
        ]
    )


def picture(paper: list[Profile], tables: list[Profile], measured: Calibration | None) -> Figure:
    with style():
        figure = Picture(figsize=(11, 4.2), layout="constrained")
        mixed, solo = figure.subplots(1, 2)
        for k, profile in enumerate(paper):
            law = profile.iteration
            label = f"{profile.name} (paper, R^2 {profile.r_squared})"
            mixed.plot(CHUNKS, 1000 * np.array([law.mixed(c) for c in CHUNKS]), color=f"C{k}", label=label)
        if measured is not None:
            fit = measured.fits[0]
            mixed.plot(CHUNKS, 1000 * np.array([fit.mixed(c) for c in CHUNKS]), color="C2", ls="--",
                       label=f"a100/qwen3-8b, B = {BATCH}, calibrated here (R^2 {fit.r_squared:.4f})")  # fmt: skip
        mixed.set_ylim(bottom=0)
        mixed.set_xlabel("chunk size C, tokens")
        mixed.set_title("mixed iteration, ms", loc="left")
        mixed.legend(fontsize=8)
        chosen = [p for p in tables if "8b" in p.name]
        for k, profile in enumerate(chosen):
            table = table_of(profile)
            solo.plot(table.solo_axes[0], 1000 * table.solo_times[:, 0], ms=4, label=profile.name, **marked(k))
        solo.set_xscale("log", base=2)
        plain_ticks(solo.xaxis)
        solo.set_ylim(bottom=0)
        solo.set_xlabel("batch size B")
        solo.set_title("solo iteration, ms (not constant)", loc="left")
        solo.legend(fontsize=8)
    return figure
