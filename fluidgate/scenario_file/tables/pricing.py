"""The table [pricing]."""

from __future__ import annotations

from pydantic import Field

from fluidgate.model import Scheme
from fluidgate.toml_file import Table


class PricingTable(Table):
    scheme: Scheme = Field(
        description="when tokens are paid: all at the last token ('bundled'), or the prompt after prefill ('separate')",
        examples=["bundled"],
    )
    prompt: float = Field(ge=0, description="the price of a prompt token, c_p", examples=[0.1])
    output: float = Field(ge=0, description="the price of an output token, c_d", examples=[0.2])
