"""The prefix cache of vLLM V1 as plainly as it can be written: slots in a list, texts compared whole."""

from __future__ import annotations

BLOCK = 16
Tokens = tuple[int, ...]


class PlainCache:
    """Slots of a block each.

    Attributes:
        line: free slots, the one taken next first.
        holders: of each slot.
        content: the text up to the end of the block that a slot holds; None if it holds none.
        stored: slots that hold something, in the order in which they were filled.
        told: what was stored ("+") and removed ("-"), and its text.
    """

    def __init__(self, slots: int) -> None:
        self.line = list(range(slots))
        self.holders = [0] * slots
        self.content: list[Tokens | None] = [None] * slots
        self.stored: list[int] = []
        self.told: list[tuple[str, Tokens]] = []

    def matched(self, tokens: Tokens) -> list[int]:
        """The slots that a text's first blocks are in; its last token is left to be read."""
        found: list[int] = []
        for end in range(BLOCK, len(tokens), BLOCK):
            same = [slot for slot in self.stored if self.content[slot] == tokens[:end]]
            if not same:
                break
            found.append(same[0])
        return found

    def take(self, tokens: Tokens) -> list[int] | None:
        """Slots for a whole text; None if there are not enough."""
        found = self.matched(tokens)
        new = -(-len(tokens) // BLOCK) - len(found)
        if new > len([slot for slot in self.line if slot not in found]):
            return None
        for slot in found:
            if self.holders[slot] == 0:
                self.line.remove(slot)
            self.holders[slot] += 1
        return found + [self.new() for _ in range(new)]

    def new(self) -> int:
        """The slot freed longest ago, empty."""
        slot = self.line.pop(0)
        self.holders[slot] = 1
        text = self.content[slot]
        if text is not None:
            self.content[slot] = None
            self.stored.remove(slot)
            self.told.append(("-", text))
        return slot

    def fill(self, slots: list[int], tokens: Tokens) -> None:
        """The slots of a request hold so much of its text."""
        for k in range(len(tokens) // BLOCK):
            if self.content[slots[k]] is None:
                self.content[slots[k]] = tokens[: (k + 1) * BLOCK]
                self.stored.append(slots[k])
                self.told.append(("+", tokens[: (k + 1) * BLOCK]))

    def release(self, slots: list[int]) -> None:
        for slot in reversed(slots):
            self.holders[slot] -= 1
            if self.holders[slot] == 0:
                self.line.append(slot)
