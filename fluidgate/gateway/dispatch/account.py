"""What a key has been served of the line of a class, in virtual time: tokens by weight."""

from __future__ import annotations


class Account:
    """Kept while the line has anybody; then all start anew.

    Attributes:
        tag: virtual time at which the key's next request may start.
        owed: what is still to be added to it: positive, what its requests took beyond what they were charged; negative,
            what they took less.
    """

    __slots__ = ("owed", "tag")

    def __init__(self) -> None:
        self.tag = 0.0
        self.owed = 0.0

    def open(self, now: float) -> None:
        """The key has somebody in the line again: time that it did not use is gone."""
        self.tag = max(now, self.tag + self.owed)
        self.owed = 0.0

    def pay(self, amount: float) -> None:
        """One of its requests starts. What it is owed in return is used up before its tag moves."""
        self.owed += amount
        if self.owed > 0.0:
            self.tag += self.owed
            self.owed = 0.0
