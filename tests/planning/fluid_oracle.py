"""The fluid program written plainly from model.md, section 3, for scipy's linprog; and scenarios."""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog

from fluidgate.model import Gpu, Indicators, IterationTime, Pricing, RequestClass, Scenario


@dataclass
class Rows:
    a_ub: list = field(default_factory=list)
    b_ub: list = field(default_factory=list)
    a_eq: list = field(default_factory=list)
    b_eq: list = field(default_factory=list)

    def at_most(self, row, bound):
        self.a_ub.append(row)
        self.b_ub.append(bound)

    def equals(self, row, value):
        self.a_eq.append(row)
        self.b_eq.append(value)


class FluidOracle:
    """Variables x, y_m, y_s, q_p, q_d (I each), then the two gaps; dense rows, all pairs of classes."""

    def __init__(self, scenario, scheme=None, *, buffer=True, extra=(0.0, 0.0, 0.0)):
        self.scenario, self.scheme = scenario, scheme or scenario.pricing.scheme
        self.n = n = len(scenario.classes)
        gpu, limits, rates = scenario.gpu, scenario.indicators, scenario.rates
        self.B, self.tau, self.gamma = gpu.batch_size, gpu.tau, gpu.iteration.gamma
        self.x, self.ym, self.ys, self.qp, self.qd = (self.block(k) for k in range(5))
        self.rows = Rows()
        one = np.ones(n)
        self.rows.at_most(self.row(x=one), 1 + extra[0])
        self.rows.at_most(self.row(ym=one, x=-(self.B - 1) * one), extra[1])
        self.rows.at_most(self.row(ys=one, x=self.B * one), self.B + extra[2])
        for i in range(n):
            e = np.eye(n)[i]
            self.rows.equals(self.row(x=rates.prefill * e, qp=rates.patience * e), rates.arrival[i])
            self.rows.equals(
                self.row(
                    x=rates.prefill * e,
                    qd=-rates.patience * e,
                    ym=-rates.mixed_decode * e,
                    ys=-rates.solo_decode * e,
                ),
                0.0,
            )
        for i in range(n):
            for j in range(n):
                if i != j:
                    e = np.eye(n)[i] - np.eye(n)[j]
                    self.rows.at_most(self.row(x=e, g1=-1.0), 0.0)
                    self.rows.at_most(self.row(ys=e, g2=-1.0), 0.0)
        no_queue = np.where(rates.patience > 0, np.inf, 0.0)
        no_buffer = not buffer or limits.any_limit
        if limits.max_tpot is not None:
            tau, gamma, eta, B = self.tau, self.gamma, limits.max_tpot, self.B
            self.rows.at_most(self.row(x=(tau * (B - 1) - B / gamma + eta) * one), B * (eta - 1 / gamma))
        upper = np.full(5 * n + 2, np.inf)
        upper[self.qp] = no_queue
        upper[self.qd] = 0.0 if no_buffer else no_queue
        upper[-2] = np.inf if limits.max_prefill_gap is None else limits.max_prefill_gap
        upper[-1] = np.inf if limits.max_solo_gap is None else limits.max_solo_gap
        self.bounds = np.column_stack([np.zeros(5 * n + 2), upper])
        w = rates.bundled_value
        if self.scheme == "bundled":
            self.revenue = self.row(ym=w * rates.mixed_decode, ys=w * rates.solo_decode)
        else:
            p = scenario.pricing
            self.revenue = self.row(
                x=p.prompt * gpu.chunk_size / self.tau * one,
                ym=p.output / self.tau * one,
                ys=p.output * self.gamma * one,
            )
        self.linear_objective = self.revenue + self.row(g1=-limits.prefill_gap_weight, g2=-limits.solo_gap_weight)

    def block(self, k):
        return slice(k * self.n, (k + 1) * self.n)

    def row(self, x=0.0, ym=0.0, ys=0.0, qp=0.0, qd=0.0, g1=0.0, g2=0.0):
        row = np.zeros(5 * self.n + 2)
        for k, v in enumerate((x, ym, ys, qp, qd)):
            row[self.block(k)] = v
        row[-2:] = g1, g2
        return row

    def maximise(self, objective=None, *, at_least=(), fraction=None):
        """Best value and solution; `at_least` holds (row, bound) pairs. None if infeasible."""
        objective = self.linear_objective if objective is None else objective
        a_ub = np.array(self.rows.a_ub + [-row for row, _ in at_least])
        b_ub = np.array(self.rows.b_ub + [-bound for _, bound in at_least])
        a_eq, b_eq = list(self.rows.a_eq), list(self.rows.b_eq)
        if fraction is not None:
            a_eq.append(self.row(x=np.ones(self.n)))
            b_eq.append(fraction)
        options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        result = linprog(
            -objective,
            a_ub,
            b_ub,
            np.array(a_eq),
            np.array(b_eq),
            self.bounds,
            method="highs",
            options=options,
        )
        if result.status == 2:
            return None
        assert result.status == 0, result.message
        return -result.fun, result.x

    def f(self, fraction):
        B, tau, gamma = self.B, self.tau, self.gamma
        return (tau * (B - 1) * fraction + B / gamma * (1 - fraction)) / (B - fraction)

    def penalised(self, points=200):
        """Best of (48) on a grid of `sum x` over the feasible range."""
        total = self.row(x=np.ones(self.n))
        low, high = -self.maximise(-total)[0], self.maximise(total)[0]
        weight = self.scenario.indicators.tpot_weight
        grid = np.linspace(low, high, points)
        values = [(self.maximise(fraction=x) or (-np.inf,))[0] - weight * self.f(x) for x in grid]
        return max(values)

    def point(self, plan):
        """A plan as the oracle's variables."""
        gaps = [np.ptp(plan.prefill), np.ptp(plan.solo_decode)]
        parts = (
            plan.prefill,
            plan.mixed_decode,
            plan.solo_decode,
            plan.prefill_queue,
            plan.decode_queue,
            gaps,
        )
        return np.concatenate(parts)

    def violation(self, plan):
        """Largest violation of a row or bound by a plan."""
        point = self.point(plan)
        return max(
            np.max(np.array(self.rows.a_ub) @ point - self.rows.b_ub),
            np.max(np.abs(np.array(self.rows.a_eq) @ point - self.rows.b_eq)),
            np.max(point - self.bounds[:, 1]),
            np.max(-point),
        )


def two_class(scheme="bundled", **indicators):
    """The instance of evaluation.md."""
    return Scenario(
        name="two-class",
        gpu=Gpu(batch_size=16, chunk_size=256, iteration=IterationTime(alpha=0.0174, beta=6.2e-5, gamma=45.45)),
        pricing=Pricing(scheme=scheme, prompt=0.1, output=0.2),
        classes=(
            request_class("decode-heavy", 300, 1000, 0.5, 0.1),
            request_class("prefill-heavy", 3000, 400, 0.5, 0.1),
        ),
        indicators=Indicators(**indicators),
    )


def request_class(name, prompt, output, arrival, patience):
    return RequestClass(
        name=name, prompt_tokens=prompt, output_tokens=output, arrival_rate=arrival, patience_rate=patience
    )


def random_scenario(seed, *, classes=None, kappa=None, limits=False, weights=False, tpot_weight=False, forever=False):
    """A scenario drawn at random; `kappa` is "above" or "below" 1, or either."""
    r = np.random.default_rng(seed)
    n = classes or int(r.integers(1, 6))
    batch, chunk = (
        int(r.choice([1, 2, 8, 16, 64], p=[0.08, 0.12, 0.3, 0.3, 0.2])),
        int(r.choice([64, 256, 1024])),
    )
    gamma = r.uniform(10, 60)
    ratio = r.uniform(1.01, 4) if kappa == "above" or (kappa is None and r.random() < 0.6) else r.uniform(0.3, 0.99)
    beta = ratio / gamma / chunk * r.uniform(0.2, 1.2)
    alpha = ratio / gamma - beta * chunk
    tau = alpha + beta * chunk
    low, high = r.choice([(28, 12000), (200, 3000)], p=[0.5, 0.5])
    drawn = []
    for i in range(n):
        prompt, output = np.exp(r.uniform(np.log(low), np.log(high), 2))
        slots = r.uniform(0.2, 3.0) / n  # of what the GPU can do
        arrival = slots / max(prompt * tau / chunk, output / gamma / batch)
        patience = 0.0 if forever and r.random() < 0.5 else np.exp(r.uniform(np.log(1e-3), np.log(2)))
        if patience == 0:
            arrival *= 0.1
        drawn.append(request_class(f"c{i}", prompt, output, arrival, patience))
    indicators = {}
    if limits:
        if r.random() < 0.5:
            indicators["max_prefill_gap"] = r.uniform(0.002, 0.3)
        if r.random() < 0.5:
            indicators["max_solo_gap"] = r.uniform(0.01, 0.6) * batch
        if r.random() < 0.4:
            indicators["max_tpot"] = (1 + r.uniform(0, 1) * (ratio - 1)) / gamma * 1.001
    if weights:
        indicators["prefill_gap_weight"] = r.choice([0.0, 1.0]) * np.exp(r.uniform(0, 8))
        indicators["solo_gap_weight"] = r.choice([0.0, 1.0]) * np.exp(r.uniform(-4, 4))
    if tpot_weight:
        indicators["tpot_weight"] = np.exp(r.uniform(4, 14))
    return Scenario(
        name=f"random-{seed}",
        gpu=Gpu(batch_size=batch, chunk_size=chunk, iteration=IterationTime(alpha=alpha, beta=beta, gamma=gamma)),
        pricing=Pricing(
            scheme="bundled" if r.random() < 0.5 else "separate",
            prompt=r.uniform(0, 0.3),
            output=r.uniform(0.01, 0.3),
        ),
        classes=tuple(drawn),
        indicators=Indicators(**indicators),
    )


def with_rates(scenario, index, arrival):
    classes = list(scenario.classes)
    classes[index] = classes[index].model_copy(update={"arrival_rate": arrival})
    return scenario.replace(classes=tuple(classes))
