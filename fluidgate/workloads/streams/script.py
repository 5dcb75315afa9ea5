"""What the requests of a run have in common: the texts of their prompts, and the further turns of their sessions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fluidgate.workloads.streams.requests import REQUEST, Requests

PIECE = np.dtype([("parent", "i4"), ("end", "i4")])
"""A piece of text: the piece before it, and the tokens from the beginning of the text to its end."""

Pieces = NDArray[np.void]
"""An array of PIECE. The first is the empty beginning of every text, its own parent; a parent comes before its pieces.

So two prompts begin alike for as long as they have their pieces in common: a tree in which each piece is a node.
"""


def no_pieces() -> Pieces:
    return np.zeros(1, PIECE)


def no_rows() -> Requests:
    return np.zeros(1, REQUEST)


@dataclass(frozen=True)
class Script:
    """What the requests of a run refer to.

    Attributes:
        pieces: of text. A request with a `text` has a prompt of as many tokens as that piece ends with; its `answer`
            is a piece whose parent is its `text`, and ends `output` tokens later.
        rows: the further requests of sessions, dtype REQUEST; the first row is none. A request whose `then` is a row
            sends it when its answer has ended and its `think` is over. One whose `spawns` is a row sets off a session
            of its own, `arrival` s after it is sent itself, and that of the row `beside`, and so on.
    """

    pieces: Pieces = field(default_factory=no_pieces)
    rows: Requests = field(default_factory=no_rows)


NO_SCRIPT = Script()
"""Of requests that share nothing and are not followed by others."""
