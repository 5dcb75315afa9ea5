"""ai-dynamo's replay, from outside: requests in, its report out."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluidgate.workloads.streams import Requests

HASHED = 512
"""Tokens of a prompt that one number of its trace stands for."""


def has_dynamo(python: str) -> bool:
    found = subprocess.run([python, "-c", "import dynamo.replay"], capture_output=True, check=False)
    return found.returncode == 0


def write_trace(path: Path, requests: Requests) -> None:
    """Requests as its trace has them; no two prompts share text."""
    with path.open("w") as out:
        fresh = 0
        for row in requests:
            blocks = -(-int(row["prompt"]) // HASHED)
            line = {
                "timestamp": round(1000 * float(row["arrival"])),
                "input_length": int(row["prompt"]),
                "output_length": int(row["output"]),
                "hash_ids": list(range(fresh, fresh + blocks)),
            }
            fresh += blocks
            out.write(json.dumps(line) + "\n")


def replay(python: str, trace: Path, workers: int, engine: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Its report of a trace on so many engines, sent round robin; `wall_time_ms` is by its own clock."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [python, "-m", "dynamo.replay", str(trace.resolve()), "--num-workers", str(workers)]
        command += ["--replay-mode", "offline", "--router-mode", "round_robin", "--report-json", str(report)]
        if engine:
            command += ["--extra-engine-args", json.dumps(dict(engine))]
        subprocess.run(command, capture_output=True, check=True, cwd=folder)
        told: dict[str, Any] = json.loads(report.read_text())
        return told
