"""The policies there are, as a list that shows itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluidgate.arguments import checked
from fluidgate.policies.catalogue import ALIASES, all_policies
from fluidgate.policies.placed import PlacedPolicy
from fluidgate.policies.policy import Policy
from fluidgate.shown import Shown, several
from fluidgate.toml_file import SCHEMA

if TYPE_CHECKING:
    import pandas as pd


class PolicyList(Shown, tuple[Policy | PlacedPolicy, ...]):
    """Policies, in the order of the catalogue."""

    def headline(self) -> str:
        return f"of {several(len(self), 'policy')}: {', '.join(each.name for each in self[:3])}, ..."

    def to_dict(self) -> dict[str, Any]:
        listed = [each.to_dict() for each in self]
        return {"schema": SCHEMA, "policies": listed, "aliases": ALIASES, "warnings": []}

    def to_dataframe(self) -> pd.DataFrame:
        """A row a policy: name, origin, summary, source, aliases, parameters and the fidelities that run it."""
        import pandas as pd

        return pd.DataFrame(
            {
                "name": each.name,
                "origin": each.origin,
                "summary": each.summary,
                "source": each.source,
                "aliases": ", ".join(alias for alias, name in ALIASES.items() if name == each.name),
                "parameters": ", ".join(parameter.name for parameter in each.parameters),
                "fidelities": ", ".join(each.fidelities),
            }
            for each in self
        )


@checked
def list_policies() -> PolicyList:
    """The policies that `simulate`, `compare`, `replay` and `size` know by name, other packages' among them."""
    return PolicyList(all_policies().values())
