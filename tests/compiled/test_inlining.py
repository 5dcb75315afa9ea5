"""Which helpers are copied into their callers."""

from __future__ import annotations

from fluidgate.compiled import called, entry_point, inlined


def test_a_called_helper_is_not_copied_into_an_inlined_one():
    """numba hands the wish to be inlined down to helpers that say nothing of it."""

    @called
    def rare(x):
        return x + 1

    @inlined
    def hot(x):
        return 2 * rare(x)

    def kernel(x):
        return hot(x)

    assert entry_point(kernel)(3) == 8
    assert [each.fndesc.inline for each in hot.overloads.values()] == [True]
    assert [each.fndesc.inline for each in rare.overloads.values()] == [False]
