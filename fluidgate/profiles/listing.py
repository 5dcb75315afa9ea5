"""The profiles there are, as a list that shows itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluidgate.profiles.profile import Profile
from fluidgate.shown import Shown, several
from fluidgate.toml_file import SCHEMA

if TYPE_CHECKING:
    import pandas as pd


class ProfileList(Shown, tuple[Profile, ...]):
    """Profiles, by name."""

    def headline(self) -> str:
        return f"of {several(len(self), 'profile')}: {', '.join(each.name for each in self[:3])}, ..."

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "profiles": [each.model_dump(mode="json") for each in self]}

    def to_dataframe(self) -> pd.DataFrame:
        """A row a profile: what it says, its iteration time's numbers among them; None where it is silent."""
        import pandas as pd

        return pd.DataFrame([each.said for each in self])
