"""LoRA adapters that are loaded and unloaded while an engine runs, as vLLM lets one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from fluidgate.emulator.bodies import ApiError
from fluidgate.emulator.engine import Engine


class LoadBody(BaseModel):
    """`POST /v1/load_lora_adapter`."""

    lora_name: str
    lora_path: str
    load_inplace: bool = False


class UnloadBody(BaseModel):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: str


def load(engine: Engine, body: LoadBody) -> str:
    """Load an adapter; what is answered.

    Raises:
        ApiError: 400 where name or path are empty, or the name is loaded already.
    """
    name = body.lora_name
    if not name or not body.lora_path:
        raise ApiError(400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided.")
    if name in engine.adapters and not body.load_inplace:
        loaded = f"The lora adapter '{name}' has already been loaded."
        hint = "If you want to load the adapter in place, set 'load_inplace' to True."
        raise ApiError(400, "InvalidUserInput", f"{loaded} {hint}")
    engine.adapters[name] = body.lora_path
    return f"Success: LoRA adapter '{name}' added successfully."


def unload(engine: Engine, body: UnloadBody) -> str:
    """Unload an adapter; what is answered.

    Raises:
        ApiError: 404 where there is none of that name.
    """
    if body.lora_name not in engine.adapters:
        raise ApiError(404, "NotFoundError", f"The lora adapter '{body.lora_name}' cannot be found.")
    del engine.adapters[body.lora_name]
    return f"Success: LoRA adapter '{body.lora_name}' removed successfully."


def cards(engine: Engine) -> list[dict[str, Any]]:
    """What `/v1/models` lists: the model, then its adapters."""
    model = engine.settings.model
    base = _card(model, model, None) | {"max_model_len": engine.settings.max_model_len}
    return [base, *(_card(name, path, model) for name, path in engine.adapters.items())]


def _card(name: str, root: str, parent: str | None) -> dict[str, Any]:
    known = {"id": name, "object": "model", "created": 0, "owned_by": "fluidgate"}
    return known | {"root": root, "parent": parent, "max_model_len": None}
