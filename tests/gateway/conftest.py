"""Real engines, started once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SLOTS = 2


@dataclass
class LlamaServers:
    """Llama.cpp servers of one model that share a folder for their slots."""

    urls: list[str]
    slot_folder: Path


@dataclass
class Spawned:
    process: subprocess.Popen[str]
    url: str

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def spawn_llama(model: Path, slot_folder: Path) -> Spawned:
    command = [sys.executable, "-m", "tests.gateway.llama_server", str(model), f"{slot_folder}/", str(SLOTS)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    return Spawned(process, process.stdout.readline().strip())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("xllamacpp", reason="no wheel of llama.cpp's server for this platform")
    from tests.gateway.tiny_gguf import write_tiny

    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny(path)
    return path


@pytest.fixture(scope="session")
def llama_servers(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServers]:
    """Two of them."""
    folder = tmp_path_factory.mktemp("slots")
    servers = [spawn_llama(tiny_model, folder) for _ in range(2)]
    try:
        assert all(server.url for server in servers), "a llama.cpp server did not start"
        yield LlamaServers([server.url for server in servers], folder)
    finally:
        for server in servers:
            server.stop()
