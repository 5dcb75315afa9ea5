"""An emulated inference engine: vLLM's API, metrics and KV transfer, at the pace of a GPU."""

from fluidgate.emulator.cluster import serve_engines
from fluidgate.emulator.server import EngineServer
from fluidgate.emulator.settings import EngineSettings

__all__ = ["EngineServer", "EngineSettings", "serve_engines"]
