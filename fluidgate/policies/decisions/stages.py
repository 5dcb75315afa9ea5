"""The stages of a request, rows of every array of counts. Read them qualified: `stages.PREFILL`.

The first three are queues; who is in one of the others holds a slot of a GPU.
"""

PREFILL_QUEUE = 0
MIXED_QUEUE = 1  # decode buffer 0: the only one, or that of the mixed group
SOLO_QUEUE = 2  # decode buffer 1
PREFILL = 3
MIXED_DECODE = 4
SOLO_DECODE = 5

STAGES = 6
QUEUES = 3
