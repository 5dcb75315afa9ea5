"""The words of a policy of one's own: its decision functions get a `View` and answer with these.

`blocked(view, tables, cls)` says whether a class may start nothing now, for a limit that it has exceeded.
"""

from fluidgate.policies.decisions.limits import blocked
from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT, View

__all__ = ["HOLD", "MIXED", "SOLO", "STAY", "WAIT", "View", "blocked"]
