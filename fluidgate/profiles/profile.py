"""A profile: the iteration time that was measured for a model on a GPU, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fluidgate.model import Calibrated, IterationTime, Noun, Positive
from fluidgate.shown import Drawn
from fluidgate.toml_file import SCHEMA

if TYPE_CHECKING:
    import pandas as pd

Range = tuple[int, int]
R_SQUARED = "R^2 of the line alpha + beta * chunk_size, between 0 and 1"
BATCH_SIZES = "the least and the greatest batch size that the profile holds for"
CHUNK_SIZES = "the least and the greatest chunk size that the profile holds for, tokens"
CONTEXTS = "the least and the greatest context of a request that the profile holds for, tokens"
READ_BEFORE = "the least and the most tokens of its prompt read before a chunk that the profile holds for"
GPUS = "the GPUs of the tensor-parallel group"
MEASURED = "when it was measured, or published: a year, 2026-02, or 2026-02-28"
DATE = r"^\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?$"
KV_BYTES = "the bytes of the keys and values of a token, over all GPUs of the group"
WEIGHTS = "the bytes of the weights, over all GPUs of the group"
MEMORY = "the bytes of memory, of all GPUs of the group"


class Profile(Drawn, Noun):
    """A named iteration time with its provenance; what is unknown is empty or `None`."""

    name: str = Field(min_length=1, description="name, for shipped profiles `GPU/MODEL`")
    iteration: IterationTime = Field(description="the iteration time")
    purpose: str = Field(default="", description="what it is for")
    model: str = Field(default="", description="the language model")
    dtype: str = Field(default="", description="the type of weights and KV, such as bf16")
    gpu: str = Field(default="", description="the GPU or the tensor-parallel group that serves it")
    gpus: int | None = Field(default=None, ge=1, description=GPUS)
    engine: str = Field(default="", description="the inference engine")
    engine_version: str = Field(default="", description="the version of the engine")
    measured: str | None = Field(default=None, pattern=DATE, description=MEASURED)
    source: str = Field(default="", description="who measured it, and where it is published")
    notes: str = Field(default="", description="what else a user should know")
    r_squared: float | None = Field(default=None, le=1, description=R_SQUARED)
    batch_sizes: Range | None = Field(default=None, description=BATCH_SIZES)
    chunk_sizes: Range | None = Field(default=None, description=CHUNK_SIZES)
    contexts: Range | None = Field(default=None, description=CONTEXTS)
    read_before: Range | None = Field(default=None, description=READ_BEFORE)
    kv_bytes_per_token: Positive | None = Field(default=None, description=KV_BYTES)
    weights_bytes: Positive | None = Field(default=None, description=WEIGHTS)
    memory_bytes: Positive | None = Field(default=None, description=MEMORY)

    def headline(self) -> str:
        return self.name

    def to_dataframe(self) -> pd.DataFrame:
        """One row: what it says, its iteration time's numbers among them; None where it is silent."""
        import pandas as pd

        return pd.DataFrame([self.said])

    @property
    def said(self) -> dict[str, Any]:
        """`to_dict` without a table of times."""
        return {key: value for key, value in self.to_dict().items() if key not in ("schema", "table")}

    @property
    def calibrated(self) -> Calibrated:
        """What a scenario keeps of the profile beside its iteration time."""
        return Calibrated(
            profile=self.name,
            batch_sizes=self.batch_sizes,
            chunk_sizes=self.chunk_sizes,
            contexts=self.contexts,
            read_before=self.read_before,
            measured=self.measured,
            gpus=self.gpus or 1,
        )

    def to_dict(self) -> dict[str, Any]:
        """The keys of the profile's file, `schema` first; what is unknown is left out."""
        known = self.model_dump(exclude={"iteration"}, exclude_none=True)
        known = {key: _whole(value) for key, value in known.items() if value != ""}
        texts = {key: value for key, value in known.items() if isinstance(value, str)}
        rest = {key: value for key, value in known.items() if not isinstance(value, str)}
        law = self.iteration.model_dump()
        table = {"table": law.pop("table")} if "table" in law else {}
        return {"schema": SCHEMA, **texts, **law, **rest, **table}


def _whole(value: Any) -> Any:
    """Bytes without a decimal point."""
    return int(value) if isinstance(value, float) and value.is_integer() and value > 1 else value
