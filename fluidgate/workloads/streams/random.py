"""The random streams of a replication's requests."""

from __future__ import annotations

from dataclasses import dataclass, fields

from numpy.random import SFC64, Generator, SeedSequence

MARKOV_STREAMS = 3
"""Streams that the Markov network spawns from the same seed and replication, left alone here."""


@dataclass(frozen=True)
class RandomStreams:
    """A stream for each thing that is drawn.

    Each takes one draw a request, so that blocks of any size give the same numbers.

    Attributes:
        gaps, phases, classes: the arrivals, epochs and classes.
        prompt, prompt_rounding, output, output_rounding: lengths.
        picks: which request of a trace lends its lengths.
        stretches: which stretches of each trace are drawn.
        patience: how long requests wait.
    """

    gaps: Generator
    phases: Generator
    classes: Generator
    prompt: Generator
    prompt_rounding: Generator
    output: Generator
    output_rounding: Generator
    picks: Generator
    patience: Generator
    stretches: SeedSequence

    @staticmethod
    def of(seed: int, replication: int) -> RandomStreams:
        names = [field.name for field in fields(RandomStreams)][:-1]
        children = SeedSequence(seed, spawn_key=(replication,)).spawn(MARKOV_STREAMS + len(names) + 1)[MARKOV_STREAMS:]
        generators = {name: Generator(SFC64(child)) for name, child in zip(names, children, strict=False)}
        return RandomStreams(**generators, stretches=children[-1])
