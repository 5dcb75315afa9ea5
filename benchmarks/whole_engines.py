"""What whole engines of several types cost, beside fractions rounded up: `python -m benchmarks.whole_engines`.

Forty drawn loads of about so many engines, on two or three types of GPU (or on four): on how many rounding up and
taking engines away while it goes is dearer than the program in whole engines, by how much at most, and how long that
takes.
"""

from __future__ import annotations

import time

from tests.planning.test_plan_mixed import MixedProgram, drawn, rounded_up_and_shrunk, types_of

CASES = 40
SAME = 1e-6


def main() -> None:
    print(f"{'engines':>8}{'types':>8}{'dearer':>10}{'by up to':>10}{'ms, median':>12}{'ms, most':>10}")
    for engines, types in ((1, None), (2, None), (8, None), (8, 4)):
        excess, seconds = zip(*(tried(seed, engines, types) for seed in range(CASES)), strict=True)
        dearer = sum(each > SAME for each in excess)
        median = sorted(seconds)[CASES // 2]
        print(
            f"{engines:>8}{types or '2-3':>8}{f'{dearer} of {CASES}':>10}{max(excess):>10.0%}"
            f"{1e3 * median:>12.0f}{1e3 * max(seconds):>10.0f}"
        )


def tried(seed: int, engines: int, types: int | None) -> tuple[float, float]:
    """By how much rounding up is dearer, as a share, and the seconds that whole engines take."""
    scenarios, prices, serves = drawn(seed, engines=engines, types=types)
    program = MixedProgram(types_of(scenarios, prices, serves))
    began = time.perf_counter()
    whole = program.in_whole_engines()
    seconds = time.perf_counter() - began
    assert whole is not None
    return rounded_up_and_shrunk(program, prices) / whole.cost - 1.0, seconds


if __name__ == "__main__":
    main()
