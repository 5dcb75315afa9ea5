"""The keys of [engine] as numbers for compiled code: `cluster.set.keys` has each under its own name.

A key of `fluidgate.engine_table` is there without another word. What is not given is -1, or inf for a number with a
point; a word is its place among those that the key may have.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any, Literal, get_args, get_origin

from fluidgate.engine_table import EngineModel, Preemption

EngineKeys: Any = namedtuple("EngineKeys", tuple(EngineModel.model_fields))  # type: ignore[misc]

SWAP = get_args(Preemption).index("swap")
"""Value of `preemption`."""


def keys_of(engine: EngineModel) -> Any:
    """The keys as `EngineKeys`."""
    return EngineKeys(
        **{name: _number(getattr(engine, name), field.annotation) for name, field in EngineModel.model_fields.items()}
    )


def _number(value: Any, kind: Any) -> Any:
    kinds = (kind, *get_args(kind))
    if value is None:
        return math.inf if float in kinds else -1
    words = [word for each in kinds if get_origin(each) is Literal for word in get_args(each)]
    return words.index(value) if value in words else value
