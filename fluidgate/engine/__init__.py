"""An emulated inference engine: vLLM's API, metrics and KV transfer, at the pace of a GPU."""

from fluidgate.engine.cluster import serve_engines
from fluidgate.engine.server import EngineServer
from fluidgate.engine.settings import EngineSettings

__all__ = ["EngineServer", "EngineSettings", "serve_engines"]
