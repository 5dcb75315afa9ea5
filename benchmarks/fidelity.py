"""How far the iteration model is from the Markov network, assumption by assumption: `python -m benchmarks.fidelity`.

The two-class instance under gate-and-route, or under the policies named: `python -m benchmarks.fidelity gi-wsp ...`.
Each row takes one assumption more away; differences are relative to the Markov network, with 95 % confidence over
replications. `--full-batches` lets iterations of few decodes be shorter, at several loads.
"""

from __future__ import annotations

import math
import sys

from fluidgate import Scenario, SimulationResult, simulate
from fluidgate.model import IterationTime, Lengths

GPUS, HORIZON, REPLICATIONS = 20, 4000.0, 6
SMALL_CHUNK = 8
POLICY = "gate-and-route"


def with_chunks(scenario: Scenario, tokens: int) -> Scenario:
    """The same prefill rates, (4), with chunks of `tokens`: iterations as much shorter, decodes as much faster."""
    share = tokens / scenario.gpu.chunk_size
    old = scenario.gpu.iteration
    iteration = old.model_copy(update={"alpha": old.alpha * share, "gamma": old.gamma / share})
    classes = tuple(c.model_copy(update={"output_tokens": c.output_tokens / share}) for c in scenario.classes)
    pricing = scenario.pricing.model_copy(update={"output": scenario.pricing.output * share})
    gpu = scenario.gpu.model_copy(update={"chunk_size": tokens, "iteration": iteration})
    return scenario.replace(gpu=gpu, classes=classes, pricing=pricing)


def by_batch(scenario: Scenario, share: float) -> Scenario:
    """The same times at full batches, of which `share` of a solo iteration is due to its decodes."""
    gpu, old = scenario.gpu, scenario.gpu.iteration
    delta = share / gpu.gamma / gpu.batch_size
    iteration = IterationTime(
        alpha=old.alpha - delta * (gpu.batch_size - 1),
        beta=old.beta,
        delta=delta,
        solo_alpha=(1.0 - share) / gpu.gamma,
        solo_delta=delta,
    )
    return scenario.replace(gpu=gpu.model_copy(update={"iteration": iteration}))


def at_load(scenario: Scenario, load: float) -> Scenario:
    classes = tuple(c.model_copy(update={"arrival_rate": load * c.arrival_rate}) for c in scenario.classes)
    return scenario.replace(classes=classes)


def main() -> None:
    if sys.argv[1:] == ["--full-batches"]:
        full_batches()
        return
    for policy in sys.argv[1:] or [POLICY]:
        table(policy)


def full_batches() -> None:
    print("| load | policy | share of a solo iteration that is its decodes' | revenue | decoding | TPOT |")
    print("|---|---|---|---|---|---|")
    base = Scenario.load("examples/two-class.toml")
    for load in (0.5, 0.8, 1.0):
        for policy in ("gate-and-route", "index-and-pool"):
            markov = run(at_load(base, load), policy, "markov")
            for share in (0.0, 0.5):
                result = run(at_load(by_batch(base, share) if share else base, load), policy, "iteration")
                ours, theirs = quantities(result), quantities(markov)
                revenue, decodes = (100 * (mean(ours[k]) / mean(theirs[k]) - 1) for k in (0, 2))
                tpot = 100 * (weighted_tpot(result) / weighted_tpot(markov) - 1)
                print(f"| {load} | {policy} | {share:.0%} | {revenue:+.1f} % | {decodes:+.1f} % | {tpot:+.1f} % |")


def weighted_tpot(result: SimulationResult) -> float:
    """Mean time per output token over both classes, by completions, s."""
    done = [float(c.completion_rate.mean or 0.0) for c in result.classes]
    return sum(n * float(c.tpot.mean or 0.0) for n, c in zip(done, result.classes, strict=True)) / sum(done)


def table(policy: str) -> None:
    base = Scenario.load("examples/two-class.toml")
    markov = run(base, policy, "markov")
    print(f"{policy}, {GPUS} GPUs, {REPLICATIONS} replications of {HORIZON:g} s; differences to the Markov network\n")
    print("| simulated | revenue | in prefill | decoding | mixed share of the decodes |")
    print("|---|---|---|---|---|")
    print(f"| Markov network | {told(markov)} |")
    fixed = Lengths(prompt="fixed", output="fixed")
    for name, scenario in (
        (f"iterations, exponential lengths, chunks of {SMALL_CHUNK}", with_chunks(base, SMALL_CHUNK)),
        ("iterations, exponential lengths, chunks of 64", with_chunks(base, 64)),
        ("iterations, exponential lengths, chunks of 256", base),
        ("the same, prompts fixed", base.replace(lengths=Lengths(prompt="fixed"))),
        ("the same, outputs fixed", base.replace(lengths=Lengths(output="fixed"))),
        ("the same, both fixed", base.replace(lengths=fixed)),
        (f"both fixed, chunks of {SMALL_CHUNK}", with_chunks(base.replace(lengths=fixed), SMALL_CHUNK)),
    ):
        print(f"| {name} | {against(run(scenario, policy, 'iteration'), markov)} |", flush=True)


def run(scenario: Scenario, policy: str, fidelity: str) -> SimulationResult:
    options = {"gpus": GPUS, "horizon": HORIZON, "replications": REPLICATIONS, "seed": 1, "workers": 1}
    return simulate(scenario, policy, fidelity=fidelity, **options)  # type: ignore[arg-type]


def quantities(result: SimulationResult) -> list[list[float]]:
    """Revenue, prefills, decodes, mixed share of the decodes: the values of the replications."""
    names = ("prefill", "mixed_decode", "solo_decode")
    held = {
        name: [sum(v) for v in zip(*(getattr(c, name).values for c in result.classes), strict=True)] for name in names
    }
    decodes = [m + s for m, s in zip(held["mixed_decode"], held["solo_decode"], strict=True)]
    share = [m / d for m, d in zip(held["mixed_decode"], decodes, strict=True)]
    return [list(result.revenue_rate.values), held["prefill"], decodes, share]


def told(result: SimulationResult) -> str:
    return " | ".join(f"{mean(values):.4g} ±{half(values):.2g}" for values in quantities(result))


def against(result: SimulationResult, markov: SimulationResult) -> str:
    cells = []
    for ours, theirs in zip(quantities(result), quantities(markov), strict=True):
        base = mean(theirs)
        cells.append(f"{100 * (mean(ours) / base - 1):+.1f} ±{100 * math.hypot(half(ours), half(theirs)) / base:.1f} %")
    return " | ".join(cells)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def half(values: list[float]) -> float:
    """Half of the 95 % confidence interval, Student t."""
    from scipy.special import stdtrit

    spread = math.sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1))
    return float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))


if __name__ == "__main__":
    main()
