"""The KV memory of a GPU, block by block: what the stepped reference keeps of the prompts that it has read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

Content = tuple[str, int, int]
"""("piece", number of the piece, number of the block in its text), or the same of a request's own text ("own")."""


@dataclass(eq=False)
class Block:
    content: Content | None = None
    holders: int = 0


class Store:
    """Blocks that somebody holds or that are free, the free ones in the order in which they are taken.

    No two have the same content: of those that would, the later holds nothing.

    Args:
        count: of the blocks; None for a memory without end, of which no block is ever taken again.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self.free = [Block() for _ in range(count or 0)]
        self.there: dict[Content, Block] = {}
        self.lost = 0  # contents whose block was taken
        self.touched = False  # since it was checked

    def matched(self, contents: Iterable[Content]) -> list[Block]:
        """The longest run from the first on of those that are there."""
        found = []
        for content in contents:
            if content not in self.there:
                break
            found.append(self.there[content])
        return found

    def share(self, blocks: Sequence[Block]) -> int:
        """One more holds them; how many were free."""
        self.touched = True
        were_free = 0
        for block in blocks:
            if block.holders == 0:
                were_free += 1
                if self.count is not None:
                    self.free.remove(block)
            block.holders += 1
        return were_free

    def take(self, count: int) -> list[Block]:
        """Blocks from the head of the free ones; what they held is lost."""
        self.touched = True
        taken = []
        for _ in range(count):
            block = Block() if self.count is None else self.free.pop(0)
            self.lost += block.content is not None
            self.forget(block)
            block.holders = 1
            taken.append(block)
        return taken

    def release(self, blocks: Sequence[Block], contents: Sequence[Content | None]) -> int:
        """One less holds them, the last is given back first; those free now have `contents`. How many these are."""
        self.touched = True
        are_free = 0
        for block, content in reversed(list(zip(blocks, contents, strict=True))):
            block.holders -= 1
            if block.holders > 0:
                continue
            are_free += 1
            if content is None:
                self.forget(block)
            else:
                self.keep(block, content)
            if self.count is not None:
                self.free.append(block)
        return are_free

    def keep(self, block: Block, content: Content) -> None:
        assert block.content in (None, content)
        if content not in self.there:
            block.content = content
            self.there[content] = block

    def forget(self, block: Block) -> None:
        if block.content is not None:
            del self.there[block.content]
            block.content = None

    def forget_all(self, *owners: tuple[str, int]) -> None:
        """No block has contents of these any more."""
        for content in [content for content in self.there if content[:2] in owners]:
            self.forget(self.there[content])

    def check(self, held: Iterable[Sequence[Block]]) -> None:
        """Each block is free, once, or held by as many as it says; what is said to be there is."""
        self.touched = False
        holders = Counter(chain.from_iterable(held))
        assert all(block.holders == count for block, count in holders.items())
        if self.count is None:
            return
        free = set(self.free)
        assert len(free) == len(self.free)
        assert not free & holders.keys()
        assert not any(block.holders for block in self.free)
        assert len(free) + len(holders) == self.count
        assert self.there == {block.content: block for block in (*self.free, *holders) if block.content is not None}
