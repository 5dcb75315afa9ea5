"""The invariants of the network, checked after every event of an audited run."""

import numpy as np

from fluidgate.compiled import called
from fluidgate.policies.decisions import stages
from fluidgate.policies.decisions.board import at_its_level
from fluidgate.policies.decisions.limits import sound
from fluidgate.policies.decisions.view import MIXED, SOLO
from fluidgate.simulation import events
from fluidgate.simulation.markov.members import member
from fluidgate.simulation.markov.network import NONE, NOW

MESSAGES = (
    "all is well",
    "a count is negative",
    "a member does not know its position, or stands in the wrong class or mode",
    "a GPU holds more than its batch, or two prefills, or a prefill outside the mixed group, or no reserve, (12)-(14)",
    "a GPU's mode differs from its prefill's, (10)",
    "seats and counts differ",
    "the sets of GPUs with free slots are wrong",
    "a queue is out of order",
    "a balance is broken, (15)-(19)",
    "the policy's cap on prefills is broken",
    "a virtual queue is negative, or no class is the least served, or time has passed by the limits",
)


@called
def full_audit(net, tables):
    """Index into MESSAGES of the first invariant that is broken, 0 if none; O(gpus * batch_size + waiting)."""
    return (
        check_counts(net)
        or check_members(net)
        or check_gpus(net)
        or check_seats(net)
        or check_ready(net)
        or check_queues(net)
        or check_balances(net)
        or check_cap(net, tables)
        or (0 if sound(net.board.state, net.clock[NOW]) else 10)
    )


@called
def check_cap(net, tables):
    return 9 if net.counts[stages.PREFILL].sum() > tables.max_prefills else 0


@called
def check_counts(net):
    for stage in range(stages.STAGES):
        for i in range(net.counts.shape[1]):
            if net.counts[stage, i] < 0:
                return 1
    return 0


@called
def check_members(net):
    for stage in range(stages.STAGES):
        for i in range(net.counts.shape[1]):
            for k in range(net.counts[stage, i]):
                place = member(net, stage, i, k)
                if stage < stages.QUEUES:
                    if net.nodes[place].position != k or net.nodes[place].cls != i:
                        return 2
                    continue
                gpu = place // net.batch_size
                if net.seats[place].position != k or net.seats[place].cls != i:
                    return 2
                if (net.gpu[gpu].prefill_seat == place) != (stage == stages.PREFILL):
                    return 2
                if stage == stages.MIXED_DECODE and net.gpu[gpu].prefill_seat == NONE:
                    return 4
                if stage == stages.SOLO_DECODE and net.gpu[gpu].prefill_seat != NONE:
                    return 4
    return 0


@called
def check_gpus(net):
    for gpu in range(net.gpus):
        has_prefill = net.gpu[gpu].prefill_seat != NONE
        decodes = net.gpu[gpu].occupied - (1 if has_prefill else 0)
        slots = net.batch_size
        if has_prefill or (net.board.reserve and net.gpu[gpu].group == MIXED):
            slots -= 1
        if decodes < 0 or decodes > slots or (has_prefill and net.gpu[gpu].group == SOLO):
            return 3
        if has_prefill != (net.gpu[gpu].mixed == 1):
            return 4
    return 0


@called
def check_seats(net):
    found = net.scratch
    found.fill(0)
    for gpu in range(net.gpus):
        occupied = 0
        for seat in range(gpu * net.batch_size, (gpu + 1) * net.batch_size):
            cls = net.seats[seat].cls
            if cls == NONE:
                continue
            occupied += 1
            if seat == net.gpu[gpu].prefill_seat:
                found[stages.PREFILL, cls] += 1
            elif net.gpu[gpu].prefill_seat == NONE:
                found[stages.SOLO_DECODE, cls] += 1
            else:
                found[stages.MIXED_DECODE, cls] += 1
        if occupied != net.gpu[gpu].occupied:
            return 5
    for stage in range(stages.PREFILL, stages.STAGES):
        for i in range(net.counts.shape[1]):
            if found[stage, i] != net.counts[stage, i]:
                return 5
    return 0


@called
def check_ready(net):
    board, view = net.board, net.board.state
    mixed_free = solo_free = startable = beside = 0
    for gpu in range(net.gpus):
        group = net.gpu[gpu].group
        idle = net.gpu[gpu].prefill_seat == NONE
        decodes = net.gpu[gpu].occupied - (0 if idle else 1)
        slots = net.batch_size - (1 if not idle or (net.board.reserve and group == MIXED) else 0)
        if decodes < slots:
            if group == MIXED:
                mixed_free += 1
            else:
                solo_free += 1
            at = net.gpu[gpu].decode_position
            if at < 0 or board.decode_ready[group, at] != gpu:
                return 6
        if group == MIXED and idle and decodes < net.batch_size:
            startable += 1
            at = net.gpu[gpu].prefill_position
            if at < 0 or board.prefill_ready[at] != gpu or not at_its_level(board, gpu):
                return 6
        if not idle and decodes < slots:
            beside += 1
            at = net.gpu[gpu].beside_position
            if at < 0 or board.beside_ready[at] != gpu:
                return 6
    right = mixed_free == view.free[MIXED] and solo_free == view.free[SOLO] and startable == view.startable[0]
    return 0 if right and beside == view.beside[0] else 6


@called
def check_queues(net):
    for queue in range(stages.QUEUES):
        for i in range(net.counts.shape[1]):
            length, node, last = 0, net.head[queue, i], -np.inf
            if (net.since[queue, i] == np.inf) != (node == NONE):
                return 7
            if node != NONE and net.since[queue, i] != net.nodes[node].since:
                return 7
            while node != NONE:
                if net.nodes[node].since < last or length > net.counts[queue, i]:
                    return 7
                last = net.nodes[node].since
                length += 1
                node = net.nodes[node].next
            if length != net.counts[queue, i]:
                return 7
    return 0


@called
def check_balances(net):
    for i in range(net.counts.shape[1]):
        happened = net.events[:, i]
        arrived, left = happened[events.ARRIVAL], happened[events.PREFILL_ABANDONMENT]
        begun, read = happened[events.PREFILL_START], happened[events.PREFILL_END]
        seated, ended = happened[events.DECODE_START], happened[events.DECODE_END]
        buffered = change(net, stages.MIXED_QUEUE, i) + change(net, stages.SOLO_QUEUE, i)
        decoding = change(net, stages.MIXED_DECODE, i) + change(net, stages.SOLO_DECODE, i)
        if (
            change(net, stages.PREFILL_QUEUE, i) != arrived - left - begun
            or change(net, stages.PREFILL, i) != begun - read
            or buffered != read - happened[events.DECODE_ABANDONMENT] - seated
            or decoding != seated - ended
        ):
            return 8
    return 0


@called
def change(net, stage, cls):
    """Change of a count since the start of the window."""
    return net.counts[stage, cls] - net.base[stage, cls]
