"""The words of a policy of one's own: its decision functions get a `View` and answer with these."""

from fluidgate.policies.decisions.view import HOLD, MIXED, SOLO, STAY, WAIT, View

__all__ = ["HOLD", "MIXED", "SOLO", "STAY", "WAIT", "View"]
