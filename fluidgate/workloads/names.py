"""Names of classes and scenarios from those of trace files."""

from __future__ import annotations

import re
from collections.abc import Sequence

PACKED = r"\.(gz|bz2|xz|zip)$"


def short_names(files: Sequence[str]) -> list[str]:
    """A short, distinct name for each file: its stem without the words that all stems begin and end with.

    >>> short_names(["AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_conv.csv"])
    ['code', 'conv']
    """
    stems = [stem_of(file) for file in files]
    words = [re.split(r"([_\-. ]+)", stem) for stem in stems]
    shared = min(len(w) for w in words) // 2 if len(words) > 1 else 0
    start = _shared(words, shared)
    end = _shared([w[::-1] for w in words], shared - start)
    names = ["".join(w[2 * start : len(w) - 2 * end]) for w in words]
    return distinct_names([name or stem for name, stem in zip(names, stems, strict=True)])


def shared_name(files: Sequence[str]) -> str:
    """What the stems of the files begin with in common, or all of them joined by `+`.

    >>> shared_name(["AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_conv.csv"])
    'AzureLLMInferenceTrace'
    """
    stems = [stem_of(file) for file in files]
    words = [re.split(r"([_\-. ]+)", stem) for stem in stems]
    start = _shared(words, min(len(w) for w in words) // 2 + 1)
    return "".join(words[0][: max(0, 2 * start - 1)]) or "+".join(stems)


def stem_of(file: str) -> str:
    """The name of a file without its endings, also that of a packed one.

    >>> stem_of("day.csv.gz")
    'day'
    """
    stem = re.sub(PACKED, "", file, flags=re.IGNORECASE)
    stem = re.sub(r"\.(csv|tsv|jsonl|json|txt|parquet)$", "", stem, flags=re.IGNORECASE)
    return "".join(c if c.isprintable() else "?" for c in stem) or "trace"


def _shared(words: Sequence[Sequence[str]], most: int) -> int:
    """How many words, up to `most`, all begin with; separators are the odd items."""
    count = 0
    while count < most and len({tuple(w[: 2 * count + 1]) for w in words}) == 1:
        count += 1
    return count


def distinct_names(names: Sequence[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        taken.append(free)
    return taken
