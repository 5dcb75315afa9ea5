"""Engines behind the gateway: what each can do, and the calls that make it do so.

`late=False` in an adapter's abilities says that a decode stays where its prompt was read, `pairs=True` that its engine
must be known before the prefill, as with SGLang's pairs.
"""

from fluidgate.gateway.engines.adapter import Abilities, Adapter, Call, Facts, Handover, Load, Role, Served
from fluidgate.gateway.engines.errors import (
    EngineError,
    EngineRefused,
    EngineSilent,
    EngineUnreachable,
    KvLost,
    NoConnection,
    NotThisEngine,
)
from fluidgate.gateway.engines.llamacpp import LlamaCpp
from fluidgate.gateway.engines.openai import OpenAiCompatible
from fluidgate.gateway.engines.sglang import Sglang
from fluidgate.gateway.engines.upstream import Answer, Connections
from fluidgate.gateway.engines.vllm import Vllm
from fluidgate.gateway.engines.vllm_coupled import VllmCoupled

ENGINES: dict[str, type[Adapter]] = {
    "vllm": Vllm,
    "vllm-coupled": VllmCoupled,
    "llamacpp": LlamaCpp,
    "sglang": Sglang,
    "openai": OpenAiCompatible,
}
"""By the name that a user gives."""

__all__ = [
    "ENGINES",
    "Abilities",
    "Adapter",
    "Answer",
    "Call",
    "Connections",
    "EngineError",
    "EngineRefused",
    "EngineSilent",
    "EngineUnreachable",
    "Facts",
    "Handover",
    "KvLost",
    "LlamaCpp",
    "Load",
    "NoConnection",
    "NotThisEngine",
    "OpenAiCompatible",
    "Role",
    "Served",
    "Sglang",
    "Vllm",
    "VllmCoupled",
]
