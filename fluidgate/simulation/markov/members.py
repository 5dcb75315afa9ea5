"""Members of a (stage, class): add, remove and pick uniformly in constant time.

A member goes by its place: a node in a queue, else a seat.
"""

from fluidgate.compiled import called, inlined
from fluidgate.policies.decisions import stages
from fluidgate.simulation.markov.network import SLACK, Network


@inlined
def member(net: Network, stage: int, cls: int, k: int) -> int:
    """The `k`-th member (a node in a queue, else a seat)."""
    at = net.start[stage, cls] + k
    if stage < stages.PREFILL:
        return net.queue_members[stage, at]
    if stage == stages.PREFILL:
        return net.prefill_members[0, at]
    return net.decode_members[stage - stages.PREFILL - 1, at]


@inlined
def add(net: Network, stage: int, cls: int, place: int) -> None:
    """Add a member at the end of its run."""
    k = net.counts[stage, cls]
    if stage < stages.PREFILL:
        if k == net.room[stage, cls]:
            spread(net.queue_members[stage], net.start[stage], net.room[stage], net.counts[stage])
        net.queue_members[stage, net.start[stage, cls] + k] = place
        net.nodes[place].position = k
    else:
        if stage == stages.PREFILL:
            if k == net.room[stage, cls]:
                spread(net.prefill_members[0], net.start[stage], net.room[stage], net.counts[stage])
            net.prefill_members[0, net.start[stage, cls] + k] = place
        else:
            row = stage - stages.PREFILL - 1
            if k == net.room[stage, cls]:
                spread(net.decode_members[row], net.start[stage], net.room[stage], net.counts[stage])
            net.decode_members[row, net.start[stage, cls] + k] = place
        net.seats[place].position = k
    net.counts[stage, cls] = k + 1
    net.area[stage, cls] -= net.clock[0] - net.warmup


@inlined
def remove(net: Network, stage: int, cls: int, place: int) -> None:
    """Remove a member; the last of the run takes its place."""
    last = net.counts[stage, cls] - 1
    moved = member(net, stage, cls, last)
    if stage < stages.PREFILL:
        k = net.nodes[place].position
        net.queue_members[stage, net.start[stage, cls] + k] = moved
        net.nodes[moved].position = k
    else:
        k = net.seats[place].position
        if stage == stages.PREFILL:
            net.prefill_members[0, net.start[stage, cls] + k] = moved
        else:
            net.decode_members[stage - stages.PREFILL - 1, net.start[stage, cls] + k] = moved
        net.seats[moved].position = k
    net.counts[stage, cls] = last
    net.area[stage, cls] += net.clock[0] - net.warmup


@called
def spread(members, start, room, counts) -> None:
    """Lay the runs stage a stage out anew, each with room in proportion to its members.

    `members` is at least twice as long as all members and the slack together, so each run at least doubles, or gains
    the slack, before the next call: constant amortised cost.
    """
    total = 0
    for i in range(len(counts)):  # close the gaps, first run first
        for k in range(counts[i]):
            members[total + k] = members[start[i] + k]
        start[i] = total
        total += counts[i]
    share = (len(members) - total) // (total + SLACK * len(counts))
    end = len(members)
    for i in range(len(counts) - 1, -1, -1):  # open new ones, last run first
        room[i] = counts[i] + share * (counts[i] + SLACK)
        end -= room[i]
        for k in range(counts[i] - 1, -1, -1):
            members[end + k] = members[start[i] + k]
        start[i] = end
