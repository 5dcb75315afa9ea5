"""Draw the requests of `examples/chat-and-code.csv`: ten minutes of two services, chats and completions of code.

    python scripts/draw_trace.py > examples/chat-and-code.csv

The format is the plain one of docs/reference/traces.md.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

SEED = 18
SECONDS = 600


class Service(NamedTuple):
    """Poisson arrivals, lognormal lengths.

    Attributes:
        rate: requests/s.
        prompt, output: log mean and deviation of the lengths, tokens.
    """

    name: str
    rate: float
    prompt: tuple[float, float]
    output: tuple[float, float]


SERVICES = (
    Service("chat", 1.0, (6.5, 0.9), (5.2, 0.6)),
    Service("code", 0.5, (7.3, 0.7), (3.0, 0.8)),
)


def draw() -> list[str]:
    """The lines of the file, in order of arrival."""
    requests = [request for service in SERVICES for request in _of(service, Random(f"{SEED} {service.name}"))]
    return [
        "arrival_time,prompt_tokens,output_tokens,class",
        *(f"{at:.3f},{prompt},{output},{name}" for at, prompt, output, name in sorted(requests)),
    ]


def _of(service: Service, random: Random) -> list[tuple[float, int, int, str]]:
    found, at = [], random.expovariate(service.rate)
    while at < SECONDS:
        prompt, output = (max(1, round(random.lognormvariate(*law))) for law in (service.prompt, service.output))
        found.append((at, prompt, output, service.name))
        at += random.expovariate(service.rate)
    return found


if __name__ == "__main__":
    print("\n".join(draw()))
