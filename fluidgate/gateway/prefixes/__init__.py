"""What engines have of the prompts that they were sent: hashes of blocks, and for how long each is believed."""

from fluidgate.gateway.prefixes.chain import Chain, chain_of_ids, chain_of_text
from fluidgate.gateway.prefixes.index import Held, PrefixIndex, Sent

__all__ = ["Chain", "Held", "PrefixIndex", "Sent", "chain_of_ids", "chain_of_text"]
