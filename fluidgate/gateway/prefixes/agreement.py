"""How far what was believed of an engine's memory agrees with what the engine itself has told."""

from __future__ import annotations

PRIOR = 20_000.0
"""Tokens for which it is taken at first that all that was believed was found."""

FADING = 200_000.0
"""Tokens believed since when what was told counts 1/e."""


class Agreement:
    """A running ratio of tokens found to tokens believed.

    Attributes:
        share: of what is believed that is to be expected, 0 to 1.
    """

    def __init__(self) -> None:
        self._believed = self._found = PRIOR
        self.share = 1.0

    def learn(self, believed: float, found: float) -> None:
        """So many tokens were believed to be there, and so many were."""
        if believed <= 0.0:
            return
        kept = FADING / (FADING + believed)
        self._believed = self._believed * kept + believed
        self._found = self._found * kept + min(found, believed)
        self.share = self._found / self._believed
