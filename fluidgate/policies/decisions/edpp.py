"""EDPP: whether a request is read where it will decode, or on a GPU of the prompt pool that sends its KV there.

Drift plus penalty, by the authors of inference-sim (its `sim/edpp.go`, the reduced rule). The GPU of its decode and
the GPU of the prompt pool are those with the greatest sum of twice the part of the prompt that they have and once their
queue's score (PRECISE). Of the two ways the cheaper one is taken. Lengths of time are counted in the target of TTFT,
work in what a GPU does of it within that time.

A simulator keeps `Edpp`: it asks `choose` as a request arrives, and tells of what becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fluidgate.compiled import called, inlined
from fluidgate.compiled.random import stream
from fluidgate.policies.decisions.placement import Criteria, Loads, Reuse, least_cost, new_loads, show_queue
from fluidgate.policies.decisions.tables import Placement

SLOWEST = 1e-3
"""Least drain rate."""

NO_WORK = -1.0
"""Of what is in no backlog."""

SCORES = Criteria(prefix_weight=2.0, queue_weight=1.0, memory_weight=0.0)

# Entries of `Edpp.chosen` and `Edpp.work`.
READER = 0
DECODER = 1


class Coefficients(NamedTuple):
    """Iteration time: with a chunk `alpha + beta*chunk + zeta*read`, without one `solo_alpha + delta*decodes +
    epsilon*context`; see `IterationTime`."""

    alpha: float
    beta: float
    zeta: float
    solo_alpha: float
    delta: float
    epsilon: float


class Edpp(NamedTuple):
    """State of the rule.

    Attributes:
        prompt_gpus: GPUs of the prompt pool, the first ones; the others decode.
        chunk: prompt tokens of an iteration at most.
        price: of a transfer, in its seconds over the target of TTFT.
        seconds: of iterations.
        latency, per_token: of a transfer, s, and s a token.
        targets: TTFT and time between tokens, s, shape (2, classes).
        readers, decoders: requests on the GPUs of each pool, numbered from 0: those that are read there and have not
            been sent on, those that decode there or will.
        backlog: work placed on a GPU and not begun, s, shape (n,); `parts`, of how many requests, int64, shape (n,).
        context: prompt tokens of the requests that decode on a GPU or will, int64, shape (n,).
        excess: virtual queues of TTFT and of time between tokens, s, shape (2, classes).
        gained: what those who were served at `epoch` were beyond their targets, in all, s, shape (2, classes); it is in
            `excess` from the next epoch or choice on, so that their order does not matter.
        epoch: s, shape (1,).
        outputs: number and sum of the outputs that have been completed, shape (2, classes).
        chosen: GPUs that read and decode the request placed last, int64, shape (2,).
        work: of that request on each of them, s; the reader has NO_WORK if it decodes as well; shape (2,).
    """

    prompt_gpus: int
    chunk: int
    price: float
    seconds: Coefficients
    latency: float
    per_token: float
    targets: Any
    readers: Loads
    decoders: Loads
    backlog: Any
    parts: Any
    context: Any
    excess: Any
    gained: Any
    epoch: Any
    outputs: Any
    chosen: Any
    work: Any


def new_edpp(
    gpus: int,
    prompt_gpus: int,
    *,
    chunk: int,
    price: float,
    seconds: Coefficients,
    latency: float,
    per_token: float,
    ttft_targets: Sequence[float],
    itl_targets: Sequence[float],
) -> Edpp:
    """The state of an idle cluster; every class has both targets, s."""
    return Edpp(
        prompt_gpus=prompt_gpus,
        chunk=chunk,
        price=float(price),
        seconds=Coefficients(*map(float, seconds)),
        latency=float(latency),
        per_token=float(per_token),
        targets=np.array([ttft_targets, itl_targets], np.float64),
        readers=new_loads(Placement.PRECISE, prompt_gpus, stream(0), SCORES),
        decoders=new_loads(Placement.PRECISE, gpus - prompt_gpus, stream(0), SCORES),
        backlog=np.zeros(gpus),
        parts=np.zeros(gpus, np.int64),
        context=np.zeros(gpus, np.int64),
        excess=np.zeros((2, len(ttft_targets))),
        gained=np.zeros((2, len(ttft_targets))),
        epoch=np.zeros(1),
        outputs=np.zeros((2, len(ttft_targets))),
        chosen=np.zeros(2, np.int64),
        work=np.zeros(2),
    )


def no_edpp() -> Edpp:
    """The least state there is, for whoever does not go by it."""
    nothing = Coefficients(*[0.0] * len(Coefficients._fields))
    return new_edpp(2, 1, chunk=1, price=0, seconds=nothing, latency=0, per_token=0, ttft_targets=(), itl_targets=())


@called
def choose(edpp: Edpp, cls: int, prompt: int, reuse: Reuse) -> int:
    """The GPU that reads a request as it arrives; `chosen` and `work` say more. Its work is in the backlogs at once."""
    settle(edpp)
    share_out(edpp, reuse)
    d = edpp.prompt_gpus + least_cost(edpp.decoders, prompt, edpp.decoders.reuse)
    p = least_cost(edpp.readers, prompt, edpp.readers.reuse)
    there, here = found_on(reuse, d), found_on(reuse, p)
    reader = p if remote_cost(edpp, cls, prompt, here, there, p) < local_cost(edpp, cls, prompt, there, d) else d
    edpp.chosen[READER], edpp.chosen[DECODER] = reader, d
    edpp.work[READER] = read_work(edpp, prompt, here) if reader == p else NO_WORK
    edpp.work[DECODER] = decode_work(edpp, cls, prompt) + (0.0 if reader == p else read_work(edpp, prompt, there))
    add_work(edpp, d, edpp.work[DECODER])
    comes(edpp, d, 1, prompt)
    if reader == p:
        add_work(edpp, p, edpp.work[READER])
        comes(edpp, p, 1, 0)
    return reader


@inlined
def add_work(edpp: Edpp, g: int, work: float) -> None:
    edpp.backlog[g] += work
    edpp.parts[g] += 1


@inlined
def share_out(edpp: Edpp, reuse: Reuse) -> None:
    """Hand to the choice of each pool's GPU what its own GPUs have of the prompt."""
    edpp.readers.reuse.count[0] = edpp.decoders.reuse.count[0] = 0
    for k in range(reuse.count[0]):
        g = reuse.gpu[k]
        if g < edpp.prompt_gpus:
            add_holder(edpp.readers.reuse, g, reuse.tokens[k])
        else:
            add_holder(edpp.decoders.reuse, g - edpp.prompt_gpus, reuse.tokens[k])


@inlined
def add_holder(reuse: Reuse, g: int, tokens: int) -> None:
    k = reuse.count[0]
    reuse.gpu[k] = g
    reuse.tokens[k] = tokens
    reuse.count[0] = k + 1


@inlined
def found_on(reuse: Reuse, g: int) -> int:
    """Tokens of the prompt that a GPU need not read."""
    for k in range(reuse.count[0]):
        if reuse.gpu[k] == g:
            return reuse.tokens[k]
    return 0


@called
def local_cost(edpp: Edpp, cls: int, prompt: int, found: int, g: int) -> float:
    """Of a request that is read where it decodes: a chunk of it lengthens the time between the tokens of others."""
    ttft, itl = edpp.targets[0, cls], edpp.targets[1, cls]
    rate = decode_rate(edpp, cls)
    new = prompt - found
    decodes = edpp.decoders.waiting[g - edpp.prompt_gpus]
    step = edpp.seconds.solo_alpha + edpp.seconds.delta * decodes + edpp.seconds.epsilon * edpp.context[g]
    work = read_work(edpp, prompt, found)
    first = edpp.backlog[g] / rate + chunks(edpp, new) * step + work
    balance = (edpp.backlog[g] / (rate * ttft)) * (work / (rate * ttft))
    slowed = edpp.seconds.beta * min(edpp.chunk, new)
    return balance + edpp.excess[0, cls] / ttft * first / ttft + edpp.excess[1, cls] / itl * slowed / itl


@called
def remote_cost(edpp: Edpp, cls: int, prompt: int, found: int, there: int, g: int) -> float:
    """Of a request that is read by `g` of the prompt pool for a GPU that has `there` tokens of it."""
    ttft = edpp.targets[0, cls]
    rate = read_rate(edpp)
    sent = edpp.latency + edpp.per_token * (prompt - there)
    work = read_work(edpp, prompt, found)
    first = edpp.backlog[g] / rate + chunks(edpp, prompt - found) * edpp.seconds.alpha + work + sent
    balance = (edpp.backlog[g] / (rate * ttft)) * (work / (rate * ttft))
    return balance + edpp.excess[0, cls] / ttft * first / ttft + edpp.price * sent / ttft


@inlined
def decode_rate(edpp: Edpp, cls: int) -> float:
    """Work that a GPU which decodes does in a second, its iterations being as long as the class tolerates."""
    return min(max(1.0 - edpp.seconds.solo_alpha / edpp.targets[1, cls], SLOWEST), 1.0)


@inlined
def read_rate(edpp: Edpp) -> float:
    """Work that a GPU does in a second which reads whole chunks."""
    return min(max(1.0 - edpp.seconds.alpha / (edpp.seconds.alpha + edpp.seconds.beta * edpp.chunk), SLOWEST), 1.0)


@inlined
def chunks(edpp: Edpp, tokens: int) -> int:
    return -(-tokens // edpp.chunk)


@inlined
def read_work(edpp: Edpp, prompt: int, found: int) -> float:
    """Seconds that the tokens not found add to iterations: each reads what comes before its chunk."""
    new = prompt - found
    whole = new // edpp.chunk
    rest = new - whole * edpp.chunk
    pairs = new * found + edpp.chunk * edpp.chunk * (whole * (whole - 1) // 2) + rest * whole * edpp.chunk
    return edpp.seconds.beta * new + edpp.seconds.zeta * pairs


@inlined
def decode_work(edpp: Edpp, cls: int, prompt: int) -> float:
    """Seconds that the tokens of an answer add to iterations, as long as the mean so far; 1 token before any."""
    output = edpp.outputs[1, cls] / edpp.outputs[0, cls] if edpp.outputs[0, cls] > 0 else 1.0
    return output * (edpp.seconds.delta + edpp.seconds.epsilon * (prompt + 0.5 * (output - 1.0)))


@called
def comes(edpp: Edpp, g: int, requests: int, context: int) -> None:
    """So many more requests are on `g`, and prompt tokens of those that decode there or will."""
    edpp.context[g] += context
    if g < edpp.prompt_gpus:
        show_queue(edpp.readers, g, edpp.readers.waiting[g] + requests, 0.0)
    else:
        here = g - edpp.prompt_gpus
        show_queue(edpp.decoders, here, edpp.decoders.waiting[here] + requests, 0.0)


@inlined
def begun(edpp: Edpp, g: int, work: float) -> None:
    """A request is in the batch of `g`, or never will be: its work there is in the backlog no more."""
    edpp.parts[g] -= 1
    edpp.backlog[g] = max(edpp.backlog[g] - work, 0.0) if edpp.parts[g] > 0 else 0.0


@called
def completed(edpp: Edpp, now: float, cls: int, ttft: float, itl: float, output: int) -> None:
    """A request of the class has been served; `itl` is nan where it had one token.

    The virtual queues gain what is beyond the targets, and lose what is below.
    """
    if now > edpp.epoch[0]:
        settle(edpp)
        edpp.epoch[0] = now
    edpp.outputs[0, cls] += 1.0
    edpp.outputs[1, cls] += output
    edpp.gained[0, cls] += ttft - edpp.targets[0, cls]
    if not np.isnan(itl):
        edpp.gained[1, cls] += itl - edpp.targets[1, cls]


@called
def settle(edpp: Edpp) -> None:
    """Bring the virtual queues up to date."""
    for row in range(2):
        for i in range(edpp.excess.shape[1]):
            edpp.excess[row, i] = max(edpp.excess[row, i] + edpp.gained[row, i], 0.0)
            edpp.gained[row, i] = 0.0
