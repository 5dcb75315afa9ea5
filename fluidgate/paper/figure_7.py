"""Figure 7: the policies of section 6.3 over random instances."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fluidgate import SimulationResult, compare
from fluidgate.paper.instances import random_instance
from fluidgate.paper.item import Outcome, Setting, Verdict
from fluidgate.reports.picture import Picture
from fluidgate.reports.plots import style
from fluidgate.simulation.statistics import Statistic, statistic

TITLE = "Policies over random instances"
POLICIES = ("gate-and-route", "fi-wsp", "gi-wsp", "gf-wsp", "fg-sp", "gi-wsp-uncapped", "gf-wsp-uncapped")
LABELS = {
    "gate-and-route": "GG-SP",
    "fi-wsp": "FI-WSP",
    "gi-wsp": "GI-WSP",
    "gf-wsp": "GF-WSP",
    "fg-sp": "FG-SP",
    "gi-wsp-uncapped": "GI-WSP\nuncapped",
    "gf-wsp-uncapped": "GF-WSP\nuncapped",
}
PAPER = POLICIES[:5]
SEED = 7


def run(setting: Setting) -> Outcome:
    instances, gpus = setting.sized(120, 6), setting.sized(500, 50)
    horizon, warmup, seeds = setting.sized(2000.0, 200.0), setting.sized(400.0, 40.0), 2
    rows = []
    for number in range(instances):
        scenario = random_instance(SEED, number)
        result = compare(
            scenario,
            POLICIES,
            gpus=gpus,
            horizon=horizon,
            warmup=warmup,
            replications=seeds,
            seed=number,
            fidelity="markov",
            **setting.where,
        )
        rows += [
            {
                "instance": number,
                "kappa": scenario.gpu.kappa,
                "classes": len(scenario.classes),
                "policy": each.policy,
                "ratio": each.optimality_ratio.mean,
                "left_before_decode": left_before_decode(each),
            }
            for each in result.policies
        ]
        if setting.progress is not None:
            setting.progress(number + 1, instances)
    data = pd.DataFrame(rows)
    ratios = data.pivot(index="instance", columns="policy", values="ratio")
    kappa = data.groupby("instance")["kappa"].first()
    headline = ratios[kappa >= 1]
    verdicts = (
        *claims(headline, f"kappa >= 1, {len(headline)} instances"),
        *claims(ratios, f"as printed, {len(ratios)} instances"),
    )
    notes = (
        f"{instances} instances from the printed ranges, n = {gpus}, T = {horizon:g} s, warm-up {warmup:g} s, {seeds} "
        "seeds each, all policies on the same arrivals. A ratio is revenue over the instance's own R*. An instance is "
        "won by the policy of the paper's five with the largest mean.",
        why(data[data["kappa"] >= 1]),
        "A bundled plan is the same for all five policies, so the comparison is of decisions alone. 'Uncapped' drops "
        "the cap at M on prefills that our reading of the two gated baselines without a partition has.",
        table(headline, f"kappa >= 1 ({len(headline)} instances)"),
        table(ratios, f"as printed ({len(ratios)} instances)"),
    )
    return Outcome(data, verdicts, picture(ratios, headline), notes)


def left_before_decode(result: SimulationResult) -> float:
    """Share of the prefilled requests that leave while they wait for decode."""
    left = sum(c.decode_abandonment_rate.mean or 0.0 for c in result.classes)
    return left / max(sum(c.prefill_completion_rate.mean or 0.0 for c in result.classes), 1e-12)


def difference(ratios: pd.DataFrame, policy: str, reference: str) -> Statistic:
    """Paired difference of ratios over the instances, in per cent of R*."""
    return statistic(100 * (ratios[policy] - ratios[reference]).to_numpy())


def said(value: Statistic) -> str:
    low, high = value.ci95 or (float("nan"), float("nan"))
    return f"{value.mean:+.2f} % of R* ({low:+.2f} to {high:+.2f})"


def wins(ratios: pd.DataFrame) -> pd.Series:
    """Share of the instances that each of the paper's five policies wins."""
    best = ratios[list(PAPER)].idxmax(axis=1)
    return best.value_counts(normalize=True).reindex(list(PAPER), fill_value=0.0)


def margins(ratios: pd.DataFrame) -> pd.Series:
    """Mean lead over the second best of the paper's five where a policy wins, in per cent of R*."""
    ranked = np.sort(ratios[list(PAPER)].to_numpy(), axis=1)
    lead = pd.Series(100 * (ranked[:, -1] - ranked[:, -2]), index=ratios.index)
    return lead.groupby(ratios[list(PAPER)].idxmax(axis=1)).mean().reindex(list(PAPER))


def why(data: pd.DataFrame) -> str:
    """Where the printed policy loses to the coupled gate."""
    left = 100 * data.groupby("policy")["left_before_decode"].mean()
    return (
        "Why a coupled gate keeps up with the proposal, or passes it, where kappa >= 1: a coupled decode keeps the "
        "slot of its prefill, so nobody who was prefilled ever waits and leaves. Of the prefilled requests "
        f"{left['gi-wsp']:.2f} % leave before their decode under GI-WSP, {left['gate-and-route']:.2f} % under GG-SP "
        f"and {left['fg-sp']:.1f} % under FG-SP (means over these instances). Where kappa < 1 the order turns: there a "
        "mixed GPU is the faster one, and what counts is how many GPUs are mixed."
    )


def claims(ratios: pd.DataFrame, what: str) -> tuple[Verdict, ...]:
    means, stds = ratios[list(PAPER)].mean(), ratios[list(PAPER)].std()
    share = wins(ratios)
    rivals = {p: difference(ratios, p, "gate-and-route") for p in PAPER[1:]}
    gate = difference(ratios, "gi-wsp", "fi-wsp")
    uncapped = difference(ratios, "gi-wsp-uncapped", "fi-wsp")
    worse = float((ratios["fg-sp"] < ratios["fi-wsp"]).mean())
    return (
        Verdict(
            f"GG-SP earns most ({what})",
            f"GG-SP wins {100 * share['gate-and-route']:.0f} %; mean ratio {means['gate-and-route']:.4f}, best mean "
            f"{means.max():.4f} ({LABELS[str(means.idxmax())]})",
            all(d.ci95 is not None and d.ci95[1] < 0 for d in rivals.values()),
        ),
        Verdict(
            f"GG-SP is steady: least spread over instances ({what})",
            f"standard deviation {stds['gate-and-route']:.4f}, the least {stds.min():.4f} "
            f"({LABELS[str(stds.idxmin())]})",
            bool(stds["gate-and-route"] <= stds.min()),
        ),
        Verdict(
            f"the gate alone (GI-WSP) clearly improves on FI-WSP ({what})",
            f"GI-WSP less FI-WSP: {said(gate)}; without its cap {said(uncapped)}",
            gate.ci95 is not None and gate.ci95[0] > 0,
        ),
        Verdict(
            f"a partition without a gate (FG-SP) can be worse than none ({what})",
            f"FG-SP earns less than FI-WSP in {100 * worse:.0f} % of the instances",
            worse > 0,
        ),
    )


def table(ratios: pd.DataFrame, what: str) -> str:
    """A Markdown table of what each policy earns."""
    lines = [
        f"Share of R*, {what}:",
        "",
        "| policy | mean | std | least | wins | by | less GG-SP |",
        "|---|---|---|---|---|---|---|",
    ]
    share, lead = wins(ratios), margins(ratios)
    for policy in POLICIES:
        column = ratios[policy]
        won = f"{100 * share[policy]:.0f} %" if policy in PAPER else "-"
        by = f"{lead[policy]:.2f} %" if share.get(policy, 0.0) > 0 else "-"
        apart = "-" if policy == "gate-and-route" else said(difference(ratios, policy, "gate-and-route"))
        name = LABELS[policy].replace("\n", " ")
        lines.append(
            f"| {name} | {column.mean():.4f} | {column.std():.4f} | {column.min():.4f} | {won} | {by} | {apart} |"
        )
    return "\n".join(lines)


def picture(ratios: pd.DataFrame, headline: pd.DataFrame) -> Figure:
    with style():
        figure = Picture(figsize=(11, 4), layout="constrained")
        for axes, chosen, title in zip(
            figure.subplots(1, 2, sharey=True),
            (headline, ratios),
            (f"kappa >= 1 ({len(headline)} instances)", f"as printed ({len(ratios)} instances)"),
            strict=True,
        ):
            for k, policy in enumerate(POLICIES):
                values = chosen[policy].to_numpy()
                spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
                axes.plot(k + spread, values, ".", ms=2.5, alpha=0.5, color=f"C{k}")
                axes.errorbar(k, values.mean(), yerr=values.std(), fmt="s", ms=5, capsize=4, color="black", lw=1)
            axes.set_xticks(range(len(POLICIES)), [LABELS[p] for p in POLICIES], fontsize=7)
            axes.axhline(1.0, color="black", lw=1, ls=":")
            axes.set_title(title, loc="left")
        figure.axes[0].set_ylabel("revenue over R* (squares: mean and std)")
    return figure
