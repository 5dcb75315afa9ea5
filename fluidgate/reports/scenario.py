"""A scenario as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from fluidgate.model import Scenario
from fluidgate.noun import said
from fluidgate.reports.tables import number, table


def scenario_tables(scenario: Scenario) -> Iterator[Table]:
    """The GPU, then the classes."""
    gpu, gpus = scenario.gpu, scenario.cluster_gpus
    whole = table(f"Scenario '{scenario.name}'", "", "")
    if gpus is not None:
        whole.add_row("GPUs that share the load", str(gpus))
    if gpu.calibrated.profile:
        whole.add_row("profile", gpu.calibrated.profile)
    whole.add_row("batch B, chunk C", f"{gpu.batch_size} requests, {gpu.chunk_size} tokens")
    whole.add_row("iteration of a full batch, mixed, solo", f"{1000 * gpu.tau:.4g} ms, {1000 * gpu.solo:.4g} ms")
    if scenario.priced:
        prices = scenario.pricing
        whole.add_row("price of a token, prompt, output", f"{prices.prompt:g}, {prices.output:g} ({prices.scheme})")
    for name, table_of in (("arrivals", scenario.arrivals), ("lengths", scenario.lengths),
                           ("engine", scenario.engine), ("targets", scenario.targets),
                           ("indicators", scenario.indicators)):  # fmt: skip
        if keys := said(table_of):
            whole.add_row(name, ", ".join(f"{key} = {value}" for key, value in keys.items()))
    yield whole
    rate = ["arrivals/s per GPU", "arrivals/s, cluster"] if gpus is not None else ["arrivals/s per GPU"]
    classes = table("Classes", "class", "mean prompt P", "mean output D", *rate, "patience rate, 1/s")
    for each in scenario.classes:
        rates = [each.arrival_rate, each.arrival_rate * gpus] if gpus is not None else [each.arrival_rate]
        values = (each.prompt_tokens, each.output_tokens, *rates, each.patience_rate)
        classes.add_row(each.name, *map(number, values))
    yield classes
