"""Scenario files (TOML) to `Scenario` and back.

Every error is one line, `FILE: KEY: REASON; MEND`.
"""

from fluidgate.scenario_file.reading import load_scenario, parse_scenario
from fluidgate.scenario_file.schema import scenario_schema
from fluidgate.scenario_file.writing import dump_scenario, write_scenario

__all__ = ["dump_scenario", "load_scenario", "parse_scenario", "scenario_schema", "write_scenario"]
