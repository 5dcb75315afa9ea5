"""Where the beginnings of prompts are: what each engine was sent, corrected by what it tells.

An estimate: engines take blocks out as they like, and others may send them prompts too. Nothing is kept of a prompt but
8 bytes a block, and no more of an engine than its KV memory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

AT_A_TIME = 10_000
"""Tokens listed as there, of which an engine's counters are heard at a time: at a look some are counted already whose
requests have not ended."""

ROUNDING = 1e-6

LEARNING = 0.05


@dataclass
class Held:
    """A prompt whose blocks a request holds on an engine.

    Attributes:
        chain: of the prompt.
        epoch: since when, as the engine's memory counts.
        blocks: the memory that it is in; an engine that begins anew has another.
    """

    engine: int
    chain: Chain
    epoch: int
    blocks: Blocks


@dataclass
class Sent(Held):
    """A prompt that an engine has got from the gateway.

    Attributes:
        tokens: of the prompt, as estimated then; `found`, those that were believed to be there.
        there: blocks that were listed as there; `listed`, their tokens.
    """

    tokens: int
    found: int
    there: int
    listed: int


@dataclass(frozen=True)
class Counted:
    """An engine's counters at a look, in prompt tokens since its start: those found, and all, None where it does not
    say; `read` and `sent` of its memory then."""

    hits: float
    prompts: float | None
    read: int
    sent: int


@dataclass
class EngineMemory:
    """What an engine is believed to have.

    Attributes:
        kv_tokens: that its memory holds, by its own word or by default.
        room: tokens for which it is believed to keep prefixes, as learnt.
        believed: tokens of prompts sent that were believed to be there, in all, as the engine counts them where it says
            so; `told`, those that it said were.
        read: tokens that were listed as there, of the prompts that have been read.
        tells: whether it says so; one that does leaves it out where it is 0.
        sent: tokens of all prompts sent, as the engine counts them where it says so.
        now: its own counters at the last look, `first` at the first, `learnt` when `agreement` was learnt; None before.
    """

    kv_tokens: int
    blocks: Blocks
    room: float
    believed: int = 0
    told: int = 0
    read: int = 0
    tells: bool = False
    agreement: Agreement = field(default_factory=Agreement)
    sent: int = 0
    now: Counted | None = None
    first: Counted | None = None
    learnt: Counted | None = None

    @property
    def ours(self) -> float:
        """Share of the engine's prompt tokens that it was sent from here."""
        now, first = self.now, self.first
        if now is None or first is None or now.prompts is None or first.prompts is None:
            return 1.0
        return min(1.0, (now.sent - first.sent) / max(1.0, now.prompts - first.prompts))


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
        """A prompt goes to an engine, which has all of it from now on, and holds it until it is `left`."""
        memory = self._memory(engine)
        there = memory.blocks.find(chain.hashes)
        listed = self._listed(chain, there, tokens)
        found = int(listed * memory.agreement.share)
        memory.believed += found
        memory.sent += tokens
        held = self.held_on(engine, chain)
        return Sent(engine, chain, held.epoch, held.blocks, tokens, found, there, listed)

    def held_on(self, engine: int, chain: Chain) -> Held:
        """An engine gets the KV of a prompt by other ways, and holds it until it is `left`."""
        memory = self._memory(engine)
        epoch = memory.blocks.hold(chain.hashes, memory.room, *self._weights)
        return Held(engine, chain, epoch, memory.blocks)

    def left(self, held: Held, answers: Sequence[Chain] = (), *, read: bool = True) -> None:
        """A request holds its blocks no more.

        Args:
            answers: the prompt with each answer that it was given, as far as that is known.
            read: whether the prompt was read.
        """
        memory = self._engines.get(held.engine)
        if memory is None or memory.blocks is not held.blocks:
            return
        blocks, hashes = memory.blocks, held.chain.hashes
        if isinstance(held, Sent) and read:
            memory.read += held.listed
        if not read:
            blocks.drop(hashes, held.epoch)
            return
        for chain in answers:
            blocks.leave(chain.hashes[len(hashes) :], 0, held.epoch, memory.room, *self._weights)
        blocks.leave(hashes, len(hashes), held.epoch, memory.room, *self._weights)

    def told(self, engine: int, sent: Sent, prompt: int, cached: int | None) -> None:
        """An engine says how many tokens a prompt had, and how many of them it did not read, if it says that."""
        chain, memory = sent.chain, self._engines.get(engine)
        if chain.text and prompt > 0:
            self.bytes_per_token += LEARNING * (chain.size / prompt - self.bytes_per_token)
        if memory is None or prompt <= 0:
            return
        memory.sent += prompt - sent.tokens
        if cached is None and memory.tells:
            cached = 0
        if cached is None:
            return
        memory.tells = True
        memory.told += cached
        believed = sent.found / max(1, sent.tokens) * prompt
        memory.believed += round(believed) - sent.found
        listed = sent.listed / max(1, sent.tokens) * prompt
        memory.agreement.learn(listed, cached)
        slack = max(2 * ENGINE_BLOCK, SLACK * prompt)
        if cached < listed - slack:
            self._tighten(memory, sent, cached / prompt)
        else:
            more = LOOSENED if cached > listed + slack else DRIFT
            memory.room += more * (memory.kv_tokens - memory.room)

    def counted(self, engine: int, hits: float, prompts: float | None = None) -> None:
        """An engine's own counters at a look: what it is believed to have goes by them where answers do not say.

        Args:
            hits: prompt tokens found in its memory, since its start.
            prompts: all prompt tokens since then; where there are more than were sent, others send it prompts too, and
                of what was found ours have their share.
        """
        memory = self._engines.get(engine)
        if memory is None or memory.tells or not self._by_counters:
            return
        now = Counted(hits, prompts, memory.read, memory.sent)
        last, memory.now = memory.now, now
        if last is None or hits < last.hits:
            memory.first = memory.learnt = now
            return
        memory.told += round((hits - last.hits) * memory.ours)
        since = memory.learnt
        if since is not None and now.read - since.read >= AT_A_TIME:
            memory.agreement.learn(now.read - since.read, (hits - since.hits) * memory.ours)
            memory.learnt = now

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

    def _tokens(self, memory: EngineMemory, chain: Chain, tokens: int) -> int:
        """Believed to be there."""
        if not len(memory.blocks):
            return 0
        return int(self._listed(chain, memory.blocks.find(chain.hashes), tokens) * memory.agreement.share)

    def _listed(self, chain: Chain, blocks: int, tokens: int) -> int:
        """Tokens of a prompt in its first blocks, all but one at most, of token ids in whole blocks of the engine."""
        if not blocks:
            return 0
        there = int(min(tokens * (blocks * chain.block) / chain.size, tokens - 1))
        return there if chain.text else there // ENGINE_BLOCK * ENGINE_BLOCK

    def _tighten(self, memory: EngineMemory, sent: Sent, share: float) -> None:
        """A block was gone that was believed to be free: so are all that were freed before it, and the engine's room is
        less than was thought. Nothing is learnt from one that other requests have held then or since."""
        lost = int(share * sent.chain.size / sent.chain.block + ROUNDING)
        if not lost < sent.there or memory.blocks is not sent.blocks:
            return
        freed = memory.blocks.freed_before(sent.chain.hashes[lost : lost + 1], sent.epoch)
        if freed == NOTHING:
            return
        memory.blocks.forget_until(freed)
        left = memory.blocks.tokens(*self._weights)
        memory.room = max(LEAST_ROOM * memory.kv_tokens, min(memory.room, left))
        memory.blocks.shrink(memory.room, *self._weights)
