"""Where measurements are from: what the options, the file and the public facts of card and model say of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from fluidgate.calibration.measurements import Measurements
from fluidgate.errors import FluidgateError
from fluidgate.profiles.facts import Card, LanguageModel, card_of, language_model_of, type_of
from fluidgate.profiles.kv_memory import kv_memory
from fluidgate.profiles.profile import DATE, Profile

TEXTS = ("model", "dtype", "gpu", "engine", "engine_version", "measured", "source", "notes")
BYTES = ("kv_bytes_per_token", "weights_bytes", "memory_bytes", "memory_bandwidth")
ALIASES = {
    "tensor_parallel": "gpus",
    "tp": "gpus",
    "date": "measured",
    "version": "engine_version",
    "device": "gpu",
    "url": "source",
}
"""Other names of the same in the comments of a file."""
COLUMNS = {**{name: name for name in ("model", "gpu", "engine", "engine_version", "dtype", "device")}, "tp": "gpus"}
"""Columns of a file that say it, where all rows say the same."""
ENGINE = re.compile(r"(?P<name>[A-Za-z][\w.-]*(?: [A-Za-z]\w*)?) v?(?P<version>\d+(?:\.\w+)+)$")


class Facts(TypedDict, total=False):
    """What is told of measurements, as a profile has it.

    Further: `memory_bandwidth`, bytes/s over all GPUs of the group, and `kv_tokens`, those that its KV memory holds.
    """

    model: str
    dtype: str
    gpu: str
    gpus: int | None
    engine: str
    engine_version: str
    measured: str | None
    source: str
    notes: str
    kv_bytes_per_token: float | None
    weights_bytes: float | None
    memory_bytes: float | None
    memory_bandwidth: float | None
    kv_tokens: int | None


@dataclass(frozen=True)
class Provenance:
    """What is known of measurements.

    Attributes:
        known: fields of the profile.
        epsilon: s to read the KV of a token once; 0 where that is unknown.
        asked: whether epsilon follows from options.
        pair_share: work of the attention of a token to another over that in the weights; 0 where it is unknown.
        kv_tokens: that the memory holds; infinite where that is unknown.
        warnings: what was assumed, a sentence each.
    """

    known: Mapping[str, Any]
    epsilon: float = 0.0
    asked: bool = False
    pair_share: float = 0.0
    kv_tokens: float = math.inf
    warnings: tuple[str, ...] = field(default=())


def provenance_of(rows: Measurements, given: Facts) -> Provenance:
    """The options' words before those of the file, and these before the public facts of card and model.

    Raises:
        FluidgateError: an option is wrong, or one of the two that make epsilon is missing.
    """
    told = _checked(given)
    found = {**_of_columns(rows), **_of_comments(rows), **told}
    if "engine" in found and "engine_version" not in found and (engine := ENGINE.fullmatch(found["engine"])):
        found |= {"engine": engine["name"], "engine_version": engine["version"]}
    pair = [told.get(key) for key in ("kv_bytes_per_token", "memory_bandwidth")]
    card, model = card_of(found.get("gpu", "")), language_model_of(found.get("model", ""))
    dtype = type_of(found.get("dtype", ""), found.get("model", ""))
    facts = _facts(card, model, dtype, found.get("gpus", 1))
    if sum(each is None for each in pair) == 1 and not {"kv_bytes_per_token", "memory_bandwidth"} <= {*facts, *found}:
        raise FluidgateError(
            "epsilon is --kv-bytes-per-token over --memory-bandwidth (bytes/s): give both of them, or neither"
        )
    known = {**facts, **found}
    bandwidth, front_end = known.pop("memory_bandwidth", None), known.pop("front_end", None)
    kv_tokens = known.pop("kv_tokens", None)
    known["notes"] = " ".join(filter(None, [known.get("notes", ""), *_in_words(kv_tokens, front_end)]))
    kv_bytes = known.get("kv_bytes_per_token")
    assumed = "dtype" not in found and "kv_bytes_per_token" in facts and "kv_bytes_per_token" not in found
    return Provenance(
        known=known,
        epsilon=kv_bytes / bandwidth if kv_bytes and bandwidth else 0.0,
        asked=None not in pair,
        pair_share=model.pair_share if model else 0.0,
        kv_tokens=kv_tokens or _that_fit(known),
        warnings=(f"dtype is not said: taken as {dtype}; give --dtype for another",) if assumed else (),
    )


def _checked(given: Facts) -> dict[str, Any]:
    """What is given, without what is empty."""
    told: dict[str, Any] = {key: value for key, value in given.items() if value not in (None, "")}
    for key in BYTES:
        if key in told and not 0.0 < told[key] < math.inf:
            raise FluidgateError(f"--{key.replace('_', '-')}: must be a finite number above 0, but is {told[key]:g}")
    for key in ("gpus", "kv_tokens"):
        if key in told and told[key] < 1:
            raise FluidgateError(f"--{key.replace('_', '-')}: must be 1 or more, but is {told[key]}")
    if "measured" in told and not re.fullmatch(DATE, told["measured"]):
        raise FluidgateError(f"--measured: must be a year, 2026-02 or 2026-02-28, but is {told['measured']}")
    return told


def _of_columns(rows: Measurements) -> dict[str, Any]:
    said = {
        name: str(rows.others[column][0])
        for column, name in COLUMNS.items()
        if column in rows.others and len(set(rows.others[column])) == 1
    }
    return _read(said)


def _of_comments(rows: Measurements) -> dict[str, Any]:
    return _read(rows.said)


def _read(said: Mapping[str, str]) -> dict[str, Any]:
    """The texts and numbers among what a file says; what is none of them is left out."""
    found: dict[str, Any] = {}
    for word, text in said.items():
        key = ALIASES.get(word, word)
        if key == "measured":
            dated = next((text[:length] for length in (10, 7, 4) if re.fullmatch(DATE, text[:length])), "")
            found |= {key: dated} if dated else {}
        elif key in TEXTS and text:
            found.setdefault(key, text)
        elif key in (*BYTES, "gpus", "kv_tokens", "front_end") and (value := _number(text)) > 0.0:
            found[key] = value if key in (*BYTES, "front_end") else max(1, int(value))
    return found


def _number(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def _facts(card: Card | None, model: LanguageModel | None, dtype: str | None, gpus: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if card is not None:
        found |= {"memory_bytes": float(round(gpus * card.memory)), "memory_bandwidth": gpus * card.bandwidth}
    if model is not None and dtype is not None:
        found |= {
            "dtype": dtype,
            "kv_bytes_per_token": float(model.kv_bytes_per_token(dtype)),
            "weights_bytes": float(model.weights_bytes(dtype)),
        }
    return found


def _in_words(kv_tokens: int | None, front_end: float | None) -> Iterator[str]:
    """What a profile has no key for; a scenario's [engine] has."""
    if kv_tokens is not None:
        yield f"KV memory of {kv_tokens:,} tokens (kv_tokens of [engine])."
    if front_end is not None:
        yield f"{1e3 * front_end:.3g} ms from a client to the engine (front_end of [engine])."


def _that_fit(known: Mapping[str, Any]) -> float:
    """Tokens that the memory holds by what the profile says; no limit where that is not enough."""
    keys = ("gpus", "kv_bytes_per_token", "weights_bytes", "memory_bytes")
    from fluidgate.model import IterationTime

    iteration = IterationTime(alpha=0.0, beta=1.0, gamma=1.0)
    profile = Profile(name="memory", iteration=iteration, **{key: known.get(key) for key in keys})
    try:
        tokens = kv_memory(profile, None).tokens
    except FluidgateError:
        return math.inf
    return math.inf if tokens is None else float(tokens)
