"""What a command left behind, and where the examples are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TWO_CLASS = ROOT / "examples" / "two-class.toml"


@dataclass(frozen=True)
class Outcome:
    """Exit status, standard output, and the lines on standard error but for that of a compilation."""

    status: int
    output: str
    notices: list[str]

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as one JSON object; anything beside it is an error."""
        value = json.loads(self.output)
        assert isinstance(value, dict)
        return value


Command = Callable[..., Outcome]
