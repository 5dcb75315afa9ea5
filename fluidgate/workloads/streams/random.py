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
        think: how long users think after a request has left.
        prefixes, turns, subagents, spawning: of each session, its prefix, its number of turns, that of the sub-agents
            that it sets off, and the turn that sets off each.
        tools, turn_think: of each turn, whether the next one is a tool's, and the time up to it.
        rows: patience of the further requests of sessions.
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
    think: Generator
    prefixes: Generator
    turns: Generator
    subagents: Generator
    spawning: Generator
    tools: Generator
    turn_think: Generator
    rows: Generator

    @staticmethod
    def of(seed: int, replication: int) -> RandomStreams:
        names = [field.name for field in fields(RandomStreams)]
        children = SeedSequence(seed, spawn_key=(replication,)).spawn(MARKOV_STREAMS + len(names))[MARKOV_STREAMS:]
        seeds = dict(zip(names, children, strict=True))
        stretches = seeds.pop("stretches")
        return RandomStreams(**{name: Generator(SFC64(child)) for name, child in seeds.items()}, stretches=stretches)
