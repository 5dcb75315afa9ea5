"""Whether the targets hold in what aiperf has measured: python3 judge.py targets.json measured

It needs nothing but Python; `fluidgate size --save` lays it beside check.sh. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

METRICS = {"ttft": "time_to_first_token", "tpot": "inter_token_latency", "latency": "request_latency"}


def main(arguments: list[str]) -> int:
    asked, folder = json.loads(Path(arguments[0]).read_text("utf-8")), Path(arguments[1])
    classes = {
        name: [each for part in parts for each in requests(folder / part, asked["warmup"])]
        for name, parts in asked["classes"].items()
    }
    print(f"{sum(map(len, classes.values()))} requests after {asked['warmup']:g} s of warm-up")
    kept = True
    for target in asked["targets"]:
        chosen = [target["class"]] if target["class"] else list(classes)
        value = statistic(target, [(name, each) for name in chosen for each in classes[name]], asked["limits"])
        share = target["statistic"] == "share"
        holds = value >= target["limit"] if share else value <= target["limit"]
        kept &= holds
        name = f"{target['measure']} {target['statistic']}" + (f" of {target['class']}" if target["class"] else "")
        print(
            f"{name}: {value:.4g} of {target['limit']:g}{'' if share else ' s'}, simulated {target['simulated']:.4g}: "
            + ("kept" if holds else "MISSED")
        )
    return 0 if kept else 1


def requests(folder: Path, warmup: float) -> list[dict[str, float] | None]:
    """Times of each request that began after the warm-up, s by measure; None for one that failed."""
    export = folder / "profile_export.jsonl"
    if not export.is_file():
        print(f"judge.py: no file {export}; {folder.parent.name}-{folder.name}.log says why", file=sys.stderr)
        sys.exit(2)
    lines = export.read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines if line.strip()]
    start = min((each["metadata"]["request_start_ns"] for each in records), default=0)
    return [times(each) for each in records if each["metadata"]["request_start_ns"] - start >= 1e9 * warmup]


def times(record: dict[str, Any]) -> dict[str, float] | None:
    """Of one request, s; an answer of one token has no time per token."""
    found = record.get("metrics") or {}
    if record.get("error") or METRICS["latency"] not in found:
        return None
    return {measure: found[name]["value"] / 1e3 for measure, name in METRICS.items() if name in found}


def statistic(
    target: dict[str, Any], chosen: list[tuple[str, dict[str, float] | None]], limits: dict[str, dict[str, float]]
) -> float:
    """What a target comes to; nan where nothing was measured."""
    measure, what = target["measure"], target["statistic"]
    if what == "share":
        good = [each is not None and (measure == "served" or in_time(each, limits[name])) for name, each in chosen]
        return sum(good) / len(good) if good else math.nan
    values = sorted(each[measure] for _, each in chosen if each is not None and measure in each)
    if not values:
        return math.nan
    if what == "mean":
        return sum(values) / len(values)
    return values[math.ceil(len(values) * int(what[1:]) / 100) - 1]


def in_time(each: dict[str, float], limits: dict[str, float]) -> bool:
    """Whether a request keeps the limits of its class on TTFT and TPOT."""
    return all(each.get(measure, 0.0) <= limit for measure, limit in limits.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
