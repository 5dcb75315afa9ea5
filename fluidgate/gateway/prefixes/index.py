"""Where the beginnings of prompts are: what each engine was sent, corrected by what it tells.

An estimate: engines take blocks out as they like, and others may send them prompts too. Nothing is kept of a prompt but
8 bytes a block, and no more of an engine than its KV memory holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fluidgate.gateway.prefixes.agreement import Agreement
from fluidgate.gateway.prefixes.chain import IDS_BLOCK, TEXT_BLOCK, Chain
from fluidgate.gateway.prefixes.memory import NOTHING, Blocks
from fluidgate.policies.decisions.placement import CANDIDATES, Reuse, no_reuse

KV_TOKENS = 500_000
"""Tokens of an engine's KV memory where nobody says."""

MOST_BLOCKS = 1 << 21
"""Of an engine, whatever its memory."""

ENGINE_BLOCK = 16
"""Tokens: engines share whole blocks only."""

SLACK = 0.05
"""Share of a prompt by which it may be found shorter than was believed, as bytes a token differ within a text."""

LOOSENED, DRIFT = 0.02, 0.0001
"""How far the room of an engine, once it is less, goes back to what the engine has when that had more than was
believed, or just that."""

LEAST_ROOM = 0.05
"""Share of its KV memory that an engine is always believed to have for prefixes."""

ROUNDING = 1e-6

LEARNING = 0.05


@dataclass
class Sent:
    """A prompt that an engine has got.

    Attributes:
        chain: of the prompt.
        tokens: of the prompt, as estimated then; `found`, those that were believed to be there.
        blocks: that were believed to be there; `epoch`, of the touch.
    """

    chain: Chain
    tokens: int
    found: int
    blocks: int
    epoch: int


@dataclass
class EngineMemory:
    """What an engine is believed to have.

    Attributes:
        kv_tokens: that its memory holds, by its own word or by default.
        room: tokens for which it is believed to keep prefixes, as learnt.
        believed: tokens of prompts sent that were believed to be there, in all, as the engine counts them where it says
            so; `told`, those that it said were.
        agreement: of the two.
        tells: whether it says so; one that does leaves it out where it is 0.
        counted: its own counter of tokens found at the last look, and `believed` then; None before.
    """

    kv_tokens: int
    blocks: Blocks
    room: float
    believed: int = 0
    told: int = 0
    tells: bool = False
    agreement: Agreement = field(default_factory=Agreement)
    counted: tuple[float, int] | None = None


class PrefixIndex:
    """What the engines of a group have of the prompts that they were sent.

    Attributes:
        bytes_per_token: of texts, learnt from engines that say how many tokens a prompt had.
        hash_seconds: that hashing has taken so far.
    """

    def __init__(
        self,
        kv_tokens: int | None = None,
        *,
        usual: int | None = None,
        bytes_per_token: float = 4.0,
        by_counters: bool = True,
    ) -> None:
        """
        Args:
            kv_tokens: of every engine's KV memory; None for what each says, or `usual`, or a default.
            bytes_per_token: of texts, at first.
            by_counters: whether an engine's own counters are believed where its answers do not say what was found; not
                where a request is two calls, of which the second finds what the first has read.
        """
        self._by_counters = by_counters
        self._kv_tokens = kv_tokens
        self._usual = usual or KV_TOKENS
        self._engines: dict[int, EngineMemory] = {}
        self.bytes_per_token = bytes_per_token
        self.hash_seconds = 0.0

    def begin(self, engine: int, kv_tokens: int | None = None) -> None:
        """An engine begins, with nothing of any prompt and a KV memory of so many tokens, if it says so."""
        known = self._engines.get(engine)
        tokens = self._kv_tokens or kv_tokens or self._usual
        most = max(1, min(tokens // IDS_BLOCK, MOST_BLOCKS))
        memory = EngineMemory(tokens, Blocks(most), float(tokens))
        if known is not None:
            memory.believed, memory.told = known.believed, known.told
        self._engines[engine] = memory

    def forget(self, engine: int) -> None:
        """An engine has lost all, or is gone."""
        if engine in self._engines:
            self.begin(engine, self._engines[engine].kv_tokens)

    def remove(self, engine: int) -> None:
        """An engine will not come back."""
        self._engines.pop(engine, None)

    def found(self, chain: Chain, tokens: int, takes: Callable[[int], bool]) -> Reuse:
        """Where the beginning of a prompt is believed to be.

        Args:
            tokens: of the prompt.
            takes: whether an engine may be sent it.
        """
        having = [
            (there, place)
            for place, memory in self._engines.items()
            if takes(place) and (there := self._tokens(memory, chain, tokens)) > 0
        ]
        reuse = no_reuse()
        having.sort(key=lambda pair: (-pair[0], pair[1]))
        reuse.count[0] = len(having[:CANDIDATES])
        for k, (there, place) in enumerate(having[:CANDIDATES]):
            reuse.gpu[k], reuse.tokens[k] = place, there
        return reuse

    def sent(self, engine: int, chain: Chain, tokens: int) -> Sent:
        """A prompt goes to an engine, which has all of it from now on."""
        memory = self._memory(engine)
        blocks = memory.blocks.find(chain.hashes)
        found = self._scaled(memory, chain, blocks, tokens)
        memory.believed += found
        return Sent(chain, tokens, found, blocks, self._touch(memory, chain))

    def has(self, engine: int, chain: Chain) -> None:
        """An engine has got a prompt, perhaps with its answer, by other ways, or has used it once more."""
        self._touch(self._memory(engine), chain)

    def told(self, engine: int, sent: Sent, prompt: int, cached: int | None) -> None:
        """An engine says how many tokens a prompt had, and how many of them it did not read, if it says that."""
        chain, memory = sent.chain, self._engines.get(engine)
        if chain.text and prompt > 0:
            self.bytes_per_token += LEARNING * (chain.size / prompt - self.bytes_per_token)
        if memory is None or prompt <= 0:
            return
        if cached is None and memory.tells:
            cached = 0
        if cached is None:
            return
        memory.tells = True
        memory.told += cached
        believed = sent.found / max(1, sent.tokens) * prompt
        memory.believed += round(believed) - sent.found
        memory.agreement.learn(believed, cached)
        slack = max(2 * ENGINE_BLOCK, SLACK * prompt)
        if cached < believed - slack:
            self._tighten(memory, sent, cached / prompt)
        else:
            more = LOOSENED if cached > believed + slack else DRIFT
            memory.room += more * (memory.kv_tokens - memory.room)

    def counted(self, engine: int, hits: float) -> None:
        """An engine's own counter of tokens found, at a look: what it is believed to have goes by it where answers do
        not say."""
        memory = self._engines.get(engine)
        if memory is None or memory.tells or not self._by_counters:
            return
        last, memory.counted = memory.counted, (hits, memory.believed)
        if last is not None and hits >= last[0]:
            memory.told += int(hits - last[0])
            memory.agreement.learn(memory.believed - last[1], hits - last[0])

    def held(self, engine: int, tokens: int) -> None:
        """An engine tells that it has taken blocks out, and holds so many tokens."""
        memory = self._engines.get(engine)
        if memory is not None:
            memory.room = float(min(memory.kv_tokens, tokens))
            memory.blocks.shrink(memory.room, *self._weights)

    def snapshot(self, engine: int) -> dict[str, float]:
        """What is believed of an engine now."""
        memory = self._engines.get(engine)
        if memory is None:
            return {"believed_tokens": 0, "told_tokens": 0, "blocks": 0, "bytes": 0, "room": 0.0, "agreement": 1.0}
        return {
            "believed_tokens": memory.believed,
            "told_tokens": memory.told,
            "blocks": len(memory.blocks),
            "bytes": memory.blocks.bytes,
            "room": memory.room,
            "agreement": memory.agreement.share,
        }

    @property
    def _weights(self) -> tuple[float, float]:
        """Tokens of a block of a text, and of one of token ids."""
        return TEXT_BLOCK / max(self.bytes_per_token, 0.1), float(IDS_BLOCK)

    def _memory(self, engine: int) -> EngineMemory:
        if engine not in self._engines:
            self.begin(engine)
        return self._engines[engine]

    def _touch(self, memory: EngineMemory, chain: Chain) -> int:
        return memory.blocks.touch(chain.hashes, memory.room, *self._weights)

    def _tokens(self, memory: EngineMemory, chain: Chain, tokens: int) -> int:
        return self._scaled(memory, chain, memory.blocks.find(chain.hashes), tokens) if len(memory.blocks) else 0

    def _scaled(self, memory: EngineMemory, chain: Chain, blocks: int, tokens: int) -> int:
        """Tokens of a prompt in its first blocks, all but one at most, of token ids in whole blocks of the engine; less
        where that has been found to have less than is believed."""
        if not blocks:
            return 0
        there = tokens * (blocks * chain.block) / chain.size * memory.agreement.share
        there = int(min(there, tokens - 1))
        return there if chain.text else there // ENGINE_BLOCK * ENGINE_BLOCK

    def _tighten(self, memory: EngineMemory, sent: Sent, share: float) -> None:
        """A block was gone that was believed to be there: so are all that were used before it, and the engine's room is
        less than was thought. Nothing is learnt from one that another prompt has used since."""
        lost = int(share * sent.chain.size / sent.chain.block + ROUNDING)
        if not lost < sent.blocks:
            return
        used = memory.blocks.used_before(sent.chain.hashes[lost : lost + 1], sent.epoch)
        if used == NOTHING:
            return
        memory.blocks.forget_until(used)
        left = memory.blocks.tokens(*self._weights)
        memory.room = max(LEAST_ROOM * memory.kv_tokens, min(memory.room, left))
        memory.blocks.shrink(memory.room, *self._weights)
