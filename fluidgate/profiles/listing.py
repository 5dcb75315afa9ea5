"""The profiles there are, as a list that shows itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluidgate.profiles.profile import Profile
from fluidgate.shown import Shown, several

if TYPE_CHECKING:
    import pandas as pd


class ProfileList(Shown, tuple[Profile, ...]):
    """Profiles, by name."""

    def headline(self) -> str:
        return f"of {several(len(self), 'profile')}: {', '.join(each.name for each in self[:3])}, ..."

    def to_dataframe(self) -> pd.DataFrame:
        """A row a profile: what it says, its iteration time's numbers among them; None where it is silent."""
        import pandas as pd

        rows = []
        for each in self:
            row = each.to_dict()
            rows.append({key: value for key, value in row.items() if key not in ("schema", "table")})
        return pd.DataFrame(rows)
