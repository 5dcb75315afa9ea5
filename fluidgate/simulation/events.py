"""What happens to requests, rows of every array of events. Read them qualified: `events.ARRIVAL`."""

ARRIVAL = 0
PREFILL_START = 1
PREFILL_END = 2
DECODE_START = 3
DECODE_END = 4
PREFILL_ABANDONMENT = 5
DECODE_ABANDONMENT = 6

IN_MARKOV = 7
"""Rows so far: those of the Markov network. The others happen iteration by iteration."""

PREFILL_PREEMPTION = 7
DECODE_PREEMPTION = 8
REJECTION = 9
REJOIN = 10  # a swapped decode goes on
GOOD = 11  # a completion within both targets
WAITING_LOSS = 12  # the GPU that a request is on fails, where it waits
PREFILL_LOSS = 13  # the same in prefill
DECODE_LOSS = 14

EVENTS = 15
