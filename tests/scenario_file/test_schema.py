from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest

from fluidgate.engine_table import EngineTable
from fluidgate.fleet_table import FailuresTable, FailureTable, StepTable
from fluidgate.scenario_file import scenario_schema
from fluidgate.session_table import SessionTable
from tests.scenario_file.mistakes import BEYOND_SCHEMA, REFUSED
from tests.scenario_file.texts import CLUSTER, NUMBERS, TOTALS, TWO, accepts, changed


def test_the_json_schema_is_one() -> None:
    schema = scenario_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["schema"] == 1
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_json_schema_accepts_what_is_valid() -> None:
    assert accepts(TWO)
    assert accepts("schema = 1\n" + TWO)
    assert accepts(changed(CLUSTER, TOTALS))
    assert accepts(changed((NUMBERS, 'profile = "a100-40gb/qwen-8b"\n')))
    assert accepts(TWO + "[indicators]\nmax_tpot = 0.03\n")


@pytest.mark.parametrize("case", sorted(set(REFUSED) - BEYOND_SCHEMA))
def test_the_json_schema_refuses_what_is_not(case: str) -> None:
    assert not accepts(changed(*REFUSED[case][0]))


def test_the_json_schema_refuses_negative_limits() -> None:
    assert not accepts(TWO + "[indicators]\nmax_tpot = -1\n")


def documented(table: str) -> set[str]:
    """The keys in the rows of the documentation's tables for one TOML table, which their first heading names."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "scenario.md").read_text("utf-8")
    keys: set[str] = set()
    for rows in re.findall(rf"^\| `{re.escape(table)}` \|.*\n((?:\|.*\n)+)", page, re.MULTILINE):
        keys.update(key for row in rows.splitlines() for key in re.findall(r"`(\w+)`", row.split(" | ")[0]))
    return keys


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ("[engine]", set(EngineTable.model_fields)),
        ("[[classes]]", set(SessionTable.model_fields)),
        ("[failures]", set(FailuresTable.model_fields) - {"at"}),
        ("[[failures.at]]", set(FailureTable.model_fields)),
        ("[[schedule]]", set(StepTable.model_fields)),
    ],
)
def test_each_key_has_its_row_in_the_documentation(table: str, keys: set[str]) -> None:
    assert keys <= documented(table)
