"""What a decision may look at: the cluster's counts and the order of arrival at the head of each queue."""

from typing import Any, NamedTuple

MIXED = 0  # group of the GPUs that may run a prefill; the only group where the cluster is not partitioned
SOLO = 1  # group of the GPUs that never run a prefill
STAY = 2  # the decode keeps the slot of its prefill
WAIT = 3  # wait in decode buffer 0; `WAIT + b` waits in buffer b

# Entries of `View.pace`.
SLOT_SECONDS = 0  # s per output token of the slots of busy GPUs, summed: B - 1 beside a prompt, else B
BUSY = 1  # GPUs with an iteration under way
MIXED_BUSY = 2  # those of them that read a prompt
DECODES = 3  # decodes in an iteration
TOKENS = 4  # output tokens/s that they gain
LATE_TOKENS = 5  # that they have gained beyond that rate, not counted yet
PACE = 6

HOLD = -1  # no class: nothing starts now


class View(NamedTuple):
    """The state of a cluster as a policy sees it, in requests (not per GPU).

    The arrays are live: a decision reads them and never writes. Simulators and the gateway fill the same view.

    Attributes:
        gpus: number of GPUs, n.
        batch_size: slots of a GPU, B.
        waiting: requests waiting for prefill, Q_p; int64, shape (classes,).
        prefilling: requests in prefill, X; int64, shape (classes,).
        buffered: requests waiting for decode, Q_d; int64, shape (2 buffers, classes). A policy with one buffer
            uses buffer 0; one that splits it keeps buffer MIXED and buffer SOLO.
        mixed_decodes: decodes on GPUs with a prefill, Y_m; int64, shape (classes,). While a decision that
            follows the end of a prefill is taken, the decodes of that GPU still count here.
        solo_decodes: decodes on GPUs without a prefill, Y_s; int64, shape (classes,).
        waiting_since: epoch at which the next waiting request came (the oldest, unless keys share a class), s, inf if
            none; shape (classes,).
        buffered_since: the same for the decode buffers; shape (2 buffers, classes).
        free: number of GPUs with a free decode slot, by group; int64, shape (2,).
        startable: number of GPUs on which a prefill could start now; int64, shape (1,).
        room: free slots of the emptiest of these, where the policy ranks them (`Tables.fewest`); int64, shape (1,).
        beside: number of GPUs with a free slot beside a prefill; int64, shape (1,).
        now: the epoch, s; shape (1,).
        excess: by how much each class has exceeded each limit so far, a virtual queue each: requests in prefill and
            solo decodes times s, and for all classes alike slots and decodes times s; then how long, s, the prefills
            of the plan would have given a class what it has had more than the least served; shape (5, classes).
            `blocked(view, tables, cls)` says whether that is too much.
        pace: what the iterations under way add up to, nan first where only the counts are known; shape (6,).
    """

    gpus: int
    batch_size: int
    waiting: Any
    prefilling: Any
    buffered: Any
    mixed_decodes: Any
    solo_decodes: Any
    waiting_since: Any
    buffered_since: Any
    free: Any
    startable: Any
    room: Any
    beside: Any
    now: Any
    excess: Any
    pace: Any
