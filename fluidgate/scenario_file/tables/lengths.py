"""The table [lengths]."""

from __future__ import annotations

from pydantic import Field

from fluidgate.model import LengthLaw
from fluidgate.toml_file import Table, absent, without_default


class LengthsTable(Table):
    prompt: LengthLaw = Field("exponential", description="the law of the prompt lengths")
    output: LengthLaw = Field("exponential", description="the law of the output lengths")
    prompt_cv: float = absent("the CV of the prompt lengths", gt=0, le=100)
    output_cv: float = absent("the CV of the output lengths", gt=0, le=100)
    traces: list[str] = Field(
        [],
        description="the paths of trace files for empirical lengths, relative to this file",
        json_schema_extra=without_default,
    )
