"""Table 3: the machine of the paper's measurements, and ours beside it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pandas as pd

from fluidgate import __version__
from fluidgate.paper.item import Outcome, Setting, Verdict

TITLE = "The measuring machine"
PAPER = {
    "GPU": "4x NVIDIA A100-SXM4-40GB",
    "CPU": "2x AMD EPYC 7H12",
    "memory": "1 TiB",
    "system": "CUDA 12.6, driver 560.28.03",
    "software": "vLLM 0.11.0",
}


def run(setting: Setting) -> Outcome:
    ours = {
        "GPU": "none: nothing here is measured on a GPU",
        "CPU": f"{processor()}, {os.cpu_count()} cores",
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "software": f"fluidgate {__version__}",
    }
    data = pd.DataFrame({"what": list(PAPER), "paper": list(PAPER.values()), "here": list(ours.values())})
    verdict = Verdict("iteration times were measured on the paper's server", "taken as given: see figure-3", None)
    return Outcome(data, (verdict,))


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"
