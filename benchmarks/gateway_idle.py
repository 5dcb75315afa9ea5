"""What an idle gateway takes: its share of a core before engines that nobody asks anything.

python -m benchmarks.gateway_idle [--engines 64] [--seconds 30]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks.gateway_load import SCENARIO, cpu_seconds, process

FIRST_ENGINE, PORT = 18901, 18900
GATEWAY = """schema = 1
scenario = "scenario.toml"
policy = "index-and-pool"
[server]
port = {port}
log = "off"
[engines]
kind = "vllm"
urls = {urls}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    urls = [f"http://127.0.0.1:{FIRST_ENGINE + k}" for k in range(given.engines)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scenario.toml").write_text(SCENARIO)
        (folder / "gateway.toml").write_text(GATEWAY.format(port=PORT, urls=orjson.dumps(urls).decode()))
        fluidgate = [sys.executable, "-m", "fluidgate"]
        engines = [*fluidgate, "engine", str(folder / "scenario.toml"), "--count", str(given.engines)]
        engines += ["--port", str(FIRST_ENGINE), "--log-level", "warning"]
        with (
            process(engines, f"{urls[-1]}/health", folder / "engines.log"),
            process([*fluidgate, "serve", str(folder / "gateway.toml")], f"http://127.0.0.1:{PORT}/health",
                    folder / "gateway.log") as pid,
        ):  # fmt: skip
            time.sleep(10.0)
            before = cpu_seconds(pid)
            time.sleep(given.seconds)
            share = (cpu_seconds(pid) - before) / given.seconds
    print(f"{given.engines} idle engines: {100 * share:.2f} % of a core")


if __name__ == "__main__":
    main()
