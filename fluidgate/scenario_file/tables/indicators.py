"""The table [indicators]."""

from __future__ import annotations

from pydantic import Field

from fluidgate.toml_file import Table, absent


class IndicatorsTable(Table):
    max_prefill_gap: float = absent("the largest x_i - x_j, eta_1", ge=0)
    max_solo_gap: float = absent("the largest y_s,i - y_s,j, eta_2", ge=0)
    max_tpot: float = absent("the largest average time per output token, eta_3, s", ge=0)
    prefill_gap_weight: float = Field(0.0, ge=0, description="the penalty per unit of prefill gap, eta_1'")
    solo_gap_weight: float = Field(0.0, ge=0, description="the penalty per unit of solo gap, eta_2'")
    tpot_weight: float = Field(0.0, ge=0, description="the penalty per second of average TPOT, eta_3'")
