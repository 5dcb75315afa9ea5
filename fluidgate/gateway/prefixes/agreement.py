"""How far what was believed of an engine's memory agrees with what the engine itself has told."""

from __future__ import annotations

PRIOR = 20_000.0
"""Tokens for which it is taken at first that all that was listed was found."""

FADING = 200_000.0
"""Tokens listed since when what was told counts 1/e."""


class Agreement:
    """A running ratio of tokens found to tokens listed as there.

    Attributes:
        share: of what is listed that is to be expected, 0 to 1.
    """

    def __init__(self) -> None:
        self._listed = self._found = PRIOR
        self.share = 1.0

    def learn(self, listed: float, found: float) -> None:
        """So many tokens were listed as there, and so many were."""
        if listed <= 0.0:
            return
        kept = FADING / (FADING + listed)
        self._listed = self._listed * kept + listed
        self._found = self._found * kept + min(found, listed)
        self.share = self._found / self._listed
