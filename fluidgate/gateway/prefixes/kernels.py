"""The compiled code of the index."""

from fluidgate.gateway.prefixes.chain import chain_of_ids, hash_blocks
from fluidgate.gateway.prefixes.index import PrefixIndex
from fluidgate.gateway.prefixes.memory import ask

ALL = (hash_blocks, ask)


def compile_all() -> None:
    """Have it compiled, and kept for later processes where that can be."""
    index, chain = PrefixIndex(), chain_of_ids(range(16))
    index.sent(0, chain, 16)
