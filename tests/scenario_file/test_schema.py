from __future__ import annotations

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


@pytest.mark.parametrize("key", EngineTable.model_fields)
def test_a_key_of_an_engine_has_its_row_in_the_documentation(key: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "scenario.md"
    assert f"| `[engine]` | `{key}` |" in page.read_text()


@pytest.mark.parametrize("key", SessionTable.model_fields)
def test_a_key_of_sessions_has_its_row_in_the_documentation(key: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "scenario.md"
    assert f"| `[[classes]]` | `{key}` |" in page.read_text()


@pytest.mark.parametrize(
    ("table", "key"),
    [("`[failures]`", key) for key in FailuresTable.model_fields if key != "at"]
    + [("`[[failures.at]]`", key) for key in FailureTable.model_fields]
    + [("`[[schedule]]`", key) for key in StepTable.model_fields],
)
def test_a_key_of_failures_has_its_row_in_the_documentation(table: str, key: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "scenario.md"
    rows = [row for row in page.read_text().splitlines() if row.startswith(f"| {table} |")]
    assert any(f"`{key}`" in row.split(" | ")[1] for row in rows)
