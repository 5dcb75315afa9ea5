"""The items of the published evaluation, in the paper's order."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from fluidgate.errors import FluidgateError, nearest
from fluidgate.paper.item import Item

ITEMS = (
    "figure-2",
    "figure-3",
    "figure-4",
    "figure-5",
    "figure-6",
    "figure-7",
    "scale",
    "figure-8",
    "figure-9",
    "figure-10",
    "figure-11",
    "figure-12",
    "table-1",
    "table-2",
    "table-3",
)


def find_item(name: str) -> Item:
    """The module of an item.

    Raises:
        FluidgateError: there is no such item; the message gives the nearest.
    """
    if name not in ITEMS:
        raise FluidgateError(
            f"paper: unknown item '{name}'{nearest(name, list(ITEMS))}; one of {', '.join(ITEMS)}, all"
        )
    return cast(Item, import_module(f"fluidgate.paper.{name.replace('-', '_')}"))
