"""The columns that both programs have for each class, in the same order."""

from __future__ import annotations

from abc import ABC, abstractmethod


class ClassBlocks(ABC):
    """Four blocks of columns, one column a class in each: who is fed and who is lost, mixed and solo decodes.

    Each program says in what unit: slots, or requests and tokens per second.
    """

    @property
    @abstractmethod
    def class_count(self) -> int: ...

    def _block(self, number: int) -> slice:
        return slice(number * self.class_count, (number + 1) * self.class_count)

    @property
    def fed(self) -> slice:
        return self._block(0)

    @property
    def lost(self) -> slice:
        return self._block(1)

    @property
    def mixed(self) -> slice:
        return self._block(2)

    @property
    def solo(self) -> slice:
        return self._block(3)
