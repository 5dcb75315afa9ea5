"""The labelled lengths behind Figures 11 and 12 and Tables 1 and 2, or what stands in for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fluidgate.paper.item import Setting
from fluidgate.workloads.classes import classes_of
from fluidgate.workloads.labelled import read_labelled
from fluidgate.workloads.length_laws import LengthLaws, length_laws
from fluidgate.workloads.traces import read_trace

DOLLY = "databricks-dolly-15k.jsonl"
AZURE = ("AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_conv.csv")


@dataclass(frozen=True)
class Category:
    """A row of the paper's Tables 1 and 2; it names no tokenizer, the lengths look like characters or words."""

    name: str
    key: str
    prompt: float
    output: float
    samples: int
    kl: float


CATEGORIES = (
    Category("Brainstorming", "brainstorming", 61, 331, 1764, 0.0652),
    Category("Classification", "classification", 123, 142, 2136, 0.1491),
    Category("Closed QA", "closed_qa", 992, 182, 1738, 0.1245),
    Category("Creative writing", "creative_writing", 89, 915, 699, 0.1595),
    Category("General QA", "general_qa", 69, 572, 2187, 0.1309),
    Category("Information extraction", "information_extraction", 1139, 273, 1462, 0.2631),
    Category("Open QA", "open_qa", 45, 293, 3739, 0.0584),
    Category("Summarization", "summarization", 1177, 436, 1150, 0.1255),
)

MISSING = f"{DOLLY} can't be shipped: `--data` names its folder. This is without it."


def dolly(setting: Setting) -> LengthLaws | None:
    """The laws of databricks-dolly-15k by category, in characters, or None where the file is missing."""
    path = None if setting.data is None else Path(setting.data) / DOLLY
    if path is None or not path.is_file():
        return None
    return length_laws(read_labelled(path, skip_empty=True))


def azure(setting: Setting) -> LengthLaws | None:
    """The laws of the two Azure traces, a category each, or None where the files are missing."""
    if setting.data is None:
        return None
    paths = [Path(setting.data) / name for name in AZURE]
    if not all(path.is_file() for path in paths):
        return None
    return length_laws(classes_of([read_trace(path) for path in paths]))


def drawn(setting: Setting) -> LengthLaws:
    """Lengths drawn from the exponential laws of the paper's Table 1: what the analysis shows where the model holds."""
    import numpy as np

    from fluidgate.workloads.labelled import Labelled

    rng = np.random.default_rng(0)
    rows = [(c.key, rng.exponential(c.prompt, c.samples), rng.exponential(c.output, c.samples)) for c in CATEGORIES]
    return length_laws(
        Labelled(
            prompt=np.concatenate([prompt for _, prompt, _ in rows]),
            output=np.concatenate([output for _, _, output in rows]),
            category=np.concatenate([np.full(len(prompt), key, dtype=object) for key, prompt, _ in rows]),
            unit="as given",
            source="drawn from the exponential laws of Table 1",
        )
    )


def available(setting: Setting) -> tuple[LengthLaws, tuple[str, ...]]:
    """The best data there is, and what must be said of it."""
    laws = dolly(setting)
    if laws is not None:
        return laws, ()
    laws = azure(setting)
    if laws is not None:
        return laws, (MISSING, "Here: the two Azure traces of 2023, lengths in tokens.")
    return drawn(setting), (MISSING, "Here: lengths drawn from the exponential laws of Table 1, with a fixed seed.")
