"""Why a kernel gives back control. Read them qualified: `pauses.DONE`."""

DONE = 0  # the horizon is reached, or the last request has left
PAUSED = 1  # the budget of events is spent
FULL = 2  # there is no room for a request: make more and go on
FAILED = 3  # the audit found a broken invariant, or a decision gave an answer that it may not
BLOCK_READ = 4  # the block of arrivals is read: bring the next one and go on
LOG_FULL = 5  # take the log and go on
RECORDS_FULL = 7  # there is no room for what lies in memory: make more and go on
REACHED = 6  # all events up to the epoch to pause at are over
