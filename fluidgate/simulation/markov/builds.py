"""The entry points of the Markov network: its kernel, and the audit of its state."""

from __future__ import annotations

from fluidgate.compiled import kept
from fluidgate.simulation.markov.audit import full_audit
from fluidgate.simulation.markov.kernel import advance


def markov_kernel(net, tables, budget):
    return advance(net, tables, budget)


def markov_audit(net, tables):
    return full_audit(net, tables)


kernel = kept(markov_kernel, "the kernel of the Markov network", seconds=10)
audit = kept(markov_audit, "the audit of the Markov network", seconds=5)
