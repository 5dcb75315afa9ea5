"""Word of what is about to be compiled."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("fluidgate")


def announce(kernel: Any) -> None:
    """Say that a shipped kernel is about to be compiled, where it is."""
    from fluidgate.simulation.iteration.builds import needs_compilation

    if needs_compilation(kernel):
        log.info("compiling the simulation kernel (once, it is kept), some 20 s ...")


def announce_policy(name: str) -> None:
    """Say that the decision functions of a policy are about to be compiled."""
    log.info("compiling the policy '%s', some 20 s ...", name)
