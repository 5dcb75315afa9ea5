"""How long outputs are: per category the exponential law against others, [LDHZ] section 14 and Figure 12.

The model takes output lengths to be exponential. All laws here are continuous and fitted by maximum likelihood,
to lengths that may be whole numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fluidgate.errors import FluidgateError
from fluidgate.model import Array
from fluidgate.workloads.classes import TraceClass
from fluidgate.workloads.exponentiality import exponentiality
from fluidgate.workloads.labelled import EVERYTHING, Labelled
from fluidgate.workloads.traces import Trace

if TYPE_CHECKING:
    import pandas as pd

Law = Literal["exponential", "lognormal", "gamma"]

_CONSTANT = 1e-9
"""Lengths that differ by less, of their mean, are one length."""


@dataclass(frozen=True)
class Fit:
    """A law fitted by maximum likelihood.

    Attributes:
        law: `exponential` (parameter `mean`), `lognormal` (`mu`, `sigma` of the logarithm) or `gamma` (`shape`,
            `scale`).
        parameters: by name, lengths in the sample's unit.
        log_likelihood: of the sample, natural logarithm.
        aic: Akaike's criterion, `2 (number of parameters) - 2 log_likelihood`; the law with the least is best.
    """

    law: Law
    parameters: dict[str, float]
    log_likelihood: float
    aic: float

    def density(self, length: Array) -> Array:
        """Probability density at lengths > 0, of the shape of `length`."""
        return np.asarray(_distribution(self.law, self.parameters).pdf(length))

    def survival(self, length: Array) -> Array:
        """Probability of a longer output, of the shape of `length`."""
        return np.asarray(_distribution(self.law, self.parameters).sf(length))


@dataclass(frozen=True, eq=False)
class CategoryLaw:
    """The lengths of one category.

    Attributes:
        name: of the category.
        prompt: prompt lengths, shape (count,).
        output: output lengths, shape (count,), greater than 0.
        cv: coefficient of variation of the outputs (ddof 0); 1 for an exponential.
        kl: Kullback-Leibler divergence of the outputs from their exponential fit, nats, over bins of equal
            probability: the estimator of `fluidgate.workloads.divergence`. At most log 20.
        ks: Kolmogorov-Smirnov distance, the largest difference between the distribution functions of the outputs
            and of their exponential fit. No p-value: the mean is fitted to the same sample.
        fits: the exponential law first; the others where the sample has at least two distinct lengths.
    """

    name: str
    prompt: Array
    output: Array
    cv: float
    kl: float
    ks: float
    fits: tuple[Fit, ...]

    @property
    def count(self) -> int:
        return len(self.output)

    @property
    def mean_prompt(self) -> float:
        return float(self.prompt.mean())

    @property
    def mean_output(self) -> float:
        return float(self.output.mean())

    @property
    def exponential(self) -> Fit:
        return self.fits[0]

    @property
    def best(self) -> Fit:
        """The fit with the least AIC."""
        return min(self.fits, key=lambda fit: fit.aic)


@dataclass(frozen=True, eq=False)
class LengthLaws:
    """The length laws of all categories.

    Attributes:
        source: name of the file, or files.
        unit: of the lengths.
        categories: sorted by name.
    """

    source: str
    unit: str
    categories: tuple[CategoryLaw, ...]

    def __getitem__(self, name: str) -> CategoryLaw:
        found = next((law for law in self.categories if law.name == name), None)
        if found is None:
            names = ", ".join(law.name for law in self.categories)
            raise FluidgateError(f"{self.source}: no category '{name}'; there are {names}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON; without the lengths themselves."""
        return {
            "schema": 1,
            "source": self.source,
            "unit": self.unit,
            "categories": [
                {
                    **_summary(law),
                    "fits": [
                        {"law": f.law, **f.parameters, "log_likelihood": f.log_likelihood, "aic": f.aic}
                        for f in law.fits
                    ],
                }
                for law in self.categories
            ],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each category; the criteria under `aic LAW`."""
        import pandas as pd

        return pd.DataFrame(
            [{**_summary(law), **{f"aic {fit.law}": fit.aic for fit in law.fits}} for law in self.categories]
        )


def length_laws(data: Labelled | Trace | Sequence[TraceClass], *, source: str | None = None) -> LengthLaws:
    """Length laws of labelled data, of a trace (by its classes, if it has any), or of the classes of traces.

    Every request counts once, whatever its trace's rate. A category with one length throughout has an exponential
    fit only.

    Args:
        data: such as `read_labelled`, `read_trace` or `classes_of` gives; not empty.
        source: its name; by default that of the file.

    Raises:
        FluidgateError: there are no requests.
    """
    samples, unit, name = _samples(data)
    if not samples:
        raise FluidgateError(f"{source or name}: no requests; give data with at least one")
    return LengthLaws(source or name, unit, tuple(_law(key, *samples[key]) for key in sorted(samples)))


def _summary(law: CategoryLaw) -> dict[str, Any]:
    return {
        "category": law.name,
        "count": law.count,
        "mean_prompt": law.mean_prompt,
        "mean_output": law.mean_output,
        "cv": law.cv,
        "kl": law.kl,
        "ks": law.ks,
        "best": law.best.law,
    }


def _samples(data: Labelled | Trace | Sequence[TraceClass]) -> tuple[dict[str, tuple[Array, Array]], str, str]:
    """Prompts and outputs of each category, their unit, and the name of the data."""
    if isinstance(data, Labelled):
        return _grouped(data.category, data.prompt, data.output), data.unit, data.source
    if isinstance(data, Trace):
        labels = np.full(len(data), EVERYTHING, dtype=object) if data.labels is None else data.labels
        prompt, output = data.prompt_tokens.astype(float), data.output_tokens.astype(float)
        return _grouped(labels, prompt, output), "tokens", data.source
    return {c.name: (c.prompt_tokens, c.output_tokens) for c in data}, "tokens", "traces"


def _grouped(labels: Any, prompt: Array, output: Array) -> dict[str, tuple[Array, Array]]:
    return {name: (prompt[labels == name], output[labels == name]) for name in set(labels.tolist())}


def _law(name: str, prompt: Array, output: Array) -> CategoryLaw:
    from scipy import stats

    found = exponentiality(output)
    assert found.mean, "output lengths are above 0"
    assert found.cv is not None
    assert found.kl is not None
    fits = [_fit("exponential", {"mean": found.mean}, output)]
    if np.ptp(output) > _CONSTANT * found.mean:
        logs = np.log(output)
        fits.append(_fit("lognormal", {"mu": float(logs.mean()), "sigma": float(logs.std())}, output))
        shape, _, scale = stats.gamma.fit(output, floc=0)
        fits.append(_fit("gamma", {"shape": float(shape), "scale": float(scale)}, output))
    ks = float(stats.kstest(output, stats.expon(scale=found.mean).cdf).statistic)
    return CategoryLaw(name, prompt, output, found.cv, found.kl, ks, tuple(fits))


def _fit(law: Law, parameters: dict[str, float], sample: Array) -> Fit:
    likelihood = float(np.sum(_distribution(law, parameters).logpdf(sample)))
    return Fit(law, parameters, likelihood, 2.0 * len(parameters) - 2.0 * likelihood)


def _distribution(law: Law, parameters: dict[str, float]) -> Any:
    from scipy import stats

    if law == "exponential":
        return stats.expon(scale=parameters["mean"])
    if law == "lognormal":
        return stats.lognorm(parameters["sigma"], scale=math.exp(parameters["mu"]))
    return stats.gamma(parameters["shape"], scale=parameters["scale"])
