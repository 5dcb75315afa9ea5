"""R* is a bound for every policy: none earns more, iteration by iteration, beyond chance."""

import numpy as np
import pytest
from scipy.stats import t as student

from fluidgate import Gpu, Pricing, RequestClass, Scenario, compare, plan
from fluidgate.model import EngineModel, Lengths, Targets
from fluidgate.policies import POLICIES
from fluidgate.policies.placed import PLACED
from tests.laws import random_law

SEEDS = range(27)
REPLICATIONS = 6
SURE = student.ppf(0.9995, REPLICATIONS - 1)
POOLED = ("distserve", "edpp", "splitwise", "splitwise-jsq")
NAMES = sorted([*POLICIES, *PLACED])


def lengths(random: np.random.Generator, law: str) -> Lengths:
    spread = {"prompt_cv": random.uniform(0.3, 1.5), "output_cv": random.uniform(0.3, 1.5)}
    return Lengths(prompt=law, output=law, **(spread if law == "lognormal" else {}))


def instance(seed: int) -> tuple[Scenario, int]:
    """A random cluster at 0.7, 1 or 1.5 times the load that it can serve in full."""
    random = np.random.default_rng(seed)
    kind, law = ("paper", "linear", "table", "wide")[seed // 3 % 4], ("fixed", "exponential", "lognormal")[seed % 3]
    shapes = [
        {
            "name": f"c{k}",
            "prompt_tokens": float(round(10 ** random.uniform(1.5, 3.7))),
            "output_tokens": float(round(10 ** random.uniform(1, 2.7))),
            "patience_rate": float(random.choice([0.05, 0.2, 2.0])),
        }
        for k in range(random.integers(1, 4))
    ]
    longest = max(shape["prompt_tokens"] + shape["output_tokens"] for shape in shapes)
    memory = int(longest * 10 ** random.uniform(0.5, 1.6)) if random.random() < 0.6 else None
    weights, load = random.uniform(0.5, 1.5, len(shapes)), float(random.choice([0.7, 1.0, 1.5]))
    plain = Scenario(
        name=f"{kind}-{law}-{seed}",
        gpu=Gpu(
            batch_size=int(random.choice([8, 16, 64, 256])),
            chunk_size=int(random.choice([256, 512, 2048, 8192])),
            iteration=random_law(random, kind),
        ),
        pricing=Pricing(scheme=random.choice(["bundled", "separate"]), prompt=0.1, output=0.2),
        classes=tuple(RequestClass(arrival_rate=float(w), **s) for w, s in zip(weights, shapes, strict=True)),
        lengths=lengths(random, law),
        engine=EngineModel(kv_tokens=memory),
        targets=Targets(ttft=10.0, tpot=0.1),
    )
    return loaded(plain, load * capacity(plain)), int(random.choice([1, 2, 5, 20]))


def loaded(scenario: Scenario, load: float) -> Scenario:
    classes = tuple(c.model_copy(update={"arrival_rate": c.arrival_rate * load}) for c in scenario.classes)
    return scenario.replace(classes=classes)


def capacity(scenario: Scenario) -> float:
    """The multiple of the arrivals up to which everybody is served."""
    low, high = 1e-4, 1e4
    while high > 1.01 * low:
        middle = (low * high) ** 0.5
        served = plan(loaded(scenario, middle), scheme="bundled").served_fraction.min()
        low, high = (middle, high) if served > 0.999 else (low, middle)
    return low


def some_policies(seed: int, gpus: int) -> list[str]:
    """Nine of them, so that three instances in a row try all."""
    third = NAMES[seed % 3 :: 3]
    return [name for name in third if gpus > 1 or name not in POOLED]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_policy_earns_more_than_the_bound(seed: int) -> None:
    scenario, gpus = instance(seed)
    arrivals = gpus * sum(c.arrival_rate for c in scenario.classes)
    horizon = max(1500 / arrivals, 40 * max(c.output_tokens for c in scenario.classes) * scenario.gpu.iteration.alpha)
    result = compare(
        scenario,
        some_policies(seed, gpus),
        gpus=gpus,
        horizon=horizon,
        warmup=0.25 * horizon,
        replications=REPLICATIONS,
        seed=seed,
        fidelity="iteration",
    )
    for each in result.policies:
        share = each.optimality_ratio
        assert share.mean is not None
        assert share.std is not None
        assert share.mean - SURE * share.std / REPLICATIONS**0.5 <= 1.0, each.policy
    assert max(each.optimality_ratio.mean or 0.0 for each in result.policies) > 0.4
