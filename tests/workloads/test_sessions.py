"""Files with sessions and hashes of blocks: read, sorted, cut, and refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluidgate.errors import FluidgateError
from fluidgate.workloads import Trace, read_trace
from fluidgate.workloads.parts import NamedTrace, joined_parts
from tests.workloads.test_formats import lines, read, refusal

MAIN = [
    [0.0, 100, 5, 0, 0.0, 1.0],
    [10.0, 160, 6, 96, 4.0, 2.0],
    [20.0, 200, 0, 128, 3.0, 2.0],
    [30.0, 260, 7, 192, 5.0, 2.0],
]
AGENT = [[0.0, 50, 2, 0, 0.0, 1.0], [3.0, 80, 3, 32, 1.5, 1.0]]


def session(**changed: Any) -> dict[str, Any]:
    whole = {
        "id": "s",
        "block": 32,
        "shared_prefix": 40,
        "requests": MAIN,
        "subagents": [{"t": 12.5, "requests": AGENT}],
    }
    return whole | changed


def sessions_of(folder: Path, *found: dict[str, Any]) -> Trace:
    return read(folder, lines(*found))


def test_sessions_of_agents(tmp_path: Path) -> None:
    trace = sessions_of(tmp_path, session(requests=MAIN[:2]), session(subagents=[]))
    assert (trace.form, trace.by_answers, trace.empty) == ("sessions of agents", True, 1)
    assert trace.prompt_tokens.tolist() == [100, 160, 50, 80, 100, 160, 260]
    assert trace.output_tokens.tolist() == [5, 6, 2, 3, 5, 6, 7]
    assert not trace.arrival_time.any()
    found = trace.sessions
    assert found is not None
    assert found.think is not None
    assert found.found is not None
    assert found.after.tolist() == [-1, 0, -1, 2, -1, 4, 5]
    assert found.spawner.tolist() == [-1, -1, 1, -1, -1, -1, -1]
    assert found.delay.tolist() == [0, 0, 2.5, 0, 0, 0, 0]
    assert found.think.tolist() == [0, 4, 0, 1.5, 0, 4, 3 + 5]  # over the turn without an answer
    assert found.found.tolist() == [0, 96, 0, 32, 0, 96, 128]
    assert (found.count, found.subagents, found.turns.tolist()) == (2, 1, [2, 3])
    assert found.session.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert found.tree.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_a_first_turn_without_an_answer(tmp_path: Path) -> None:
    begun = [[0.0, 100, 0, 0, 0.0, 1.0], *MAIN[1:2]]
    trace = sessions_of(tmp_path, session(requests=begun, subagents=[{"t": 5.0, "requests": AGENT}]))
    found = trace.sessions
    assert found is not None
    assert found.think is not None
    assert found.found is not None
    assert (found.after.tolist(), found.spawner.tolist()) == ([-1, -1, 1], [-1, 0, -1])
    assert (found.think.tolist(), found.found.tolist(), found.delay.tolist()) == ([0, 0, 1.5], [0, 0, 32], [0, 0, 0])


def test_a_packed_file_of_sessions(tmp_path: Path) -> None:
    assert len(read(tmp_path, gzip.compress(lines(session()).encode()))) == 5


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"requests": []}, "line 2: requests: must be an array of requests, but is an array of 0; give one"),
        ({"requests": None}, "line 2: requests: missing; give one with at least a request"),
        ({"requests": [7]}, "line 2: requests[0]: must be an array, but is 7; give start, prompt tokens,"),
        ({"requests": [[0, 5, 5]]}, "line 2: requests[0]: must be an array, but is an array of 3; give start"),
        ({"requests": [[0, "x", 5, 0, 0]]}, "line 2: requests[0][1]: must be a whole number from 0 to 2147483647, but"),
        ({"requests": [[0, 5.5, 5, 0, 0]]}, "line 2: requests[0][1]: must be a whole number"),
        ({"requests": [[0, 5, -1, 0, 0]]}, "line 2: requests[0][2]: must be a whole number"),
        ({"requests": [[0, 5, 1, 0, -2.0]]}, "line 2: requests[0][4]: must be a time of at least 0 s, but is -2.0"),
        ({"requests": [[0, 5, 1, 0, None]]}, "line 2: requests[0][4]: must be a time of at least 0 s, but is "),
        ({"requests": [[0, 5, 1, 2, 0]]}, "line 2: requests[0][3]: 2 tokens found of no prompt before, so of 0; give"),
        (
            {"requests": [MAIN[0], [1, 60, 1, 70, 0]]},
            "line 2: requests[1][3]: 70 tokens found of a prompt of 60; give the tokens that the two begin with alike",
        ),
        ({"requests": [MAIN[0], [1, 200, 1, 101, 0]]}, "line 2: requests[1][3]: 101 tokens found of a last prompt of"),
        ({"subagents": 3}, "line 2: subagents: must be an array, but is 3; give one"),
        ({"subagents": [3]}, "line 2: subagents[0]: must be an object, but is 3; give t and requests"),
        ({"subagents": [{"requests": AGENT}]}, "line 2: subagents[0].t: must be a time"),
        ({"subagents": [{"t": 0, "requests": []}]}, "line 2: subagents[0].requests: must be an array of requests"),
    ],
)
def test_wrong_sessions_are_refused(tmp_path: Path, changed: dict[str, Any], wanted: str) -> None:
    assert refusal(tmp_path, lines(session(), session(**changed))).startswith(wanted)


def test_other_lines_that_are_no_sessions(tmp_path: Path) -> None:
    good = lines(session())
    assert refusal(tmp_path, f"{good}[1]\n").startswith("line 2: must be an object, but is an array; give one session")
    assert refusal(tmp_path, f"{good}{{\n").startswith("line 2: not JSON (")
    assert refusal(tmp_path, lines(session(requests=[[0, 5, 0, 0, 0]], subagents=[]))).startswith("every request is")
    options: list[dict[str, Any]] = [
        {"columns": {"class": "id"}},
        {"class_column": "id"},
        {"benchmark": 1},
        {"unit": "s"},
    ]
    for option in options:
        assert "leave " in refusal(tmp_path, good, **option)


def mooncake(*prompts: tuple[int, int, Any]) -> str:
    keys = ("timestamp", "input_length", "hash_ids")
    return lines(*(dict(zip(keys, each, strict=True)) | {"output_length": 1} for each in prompts))


def blocks_of(trace: Trace) -> list[list[int]]:
    assert trace.blocks is not None
    return [trace.blocks.of(k).tolist() for k in range(len(trace))]


def test_blocks_of_mooncake_come_with_their_requests(tmp_path: Path) -> None:
    text = mooncake((2000, 600, [0, 1]), (1000, 1024, [0, 2]), (3000, 1100, [0, 2, 2**63]), (4000, 1030, [3, 4]))
    trace = read(tmp_path, text, sort=True)
    assert blocks_of(trace) == [[0, 2], [0, 1], [0, 2, 2**63], [3, 4]]
    assert trace.blocks is not None
    assert (trace.blocks.size, trace.says_texts, trace.sessions) == (512, True, None)
    assert not trace.notes
    assert (
        blocks_of(read(tmp_path, text.replace("600", "0"), sort=True, skip_empty=True))
        == blocks_of(trace)[:1] + (blocks_of(trace)[2:])
    )
    trace = read(tmp_path, mooncake((0, 10, [1, 2, 3]), (1, 10, [1])))
    assert blocks_of(trace) == [[1], [1]]
    assert trace.notes == ("t.csv: hash_ids: 1 requests have more blocks of 512 tokens than their prompts fill",)


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ("0", "line 2: hash_ids: must be, but is '0'; give a list of whole numbers from 0, or leave the key out"),
        (None, "line 2: hash_ids: missing; give a list of whole numbers"),
        ([0.5], "line 2: hash_ids: must be, but is an array with 0.5; give a list"),
        ([-1], "line 2: hash_ids: must be, but is an array with -1; give a list"),
        (["x"], "line 2: hash_ids: must be, but is an array with 'x'; give a list"),
        ([[1]], "line 2: hash_ids: must be, but is an array"),
        ([], "line 2: hash_ids: 0 blocks of 512 tokens are too few for a prompt of 600; give 2, or leave the key out"),
    ],
)
def test_wrong_blocks_are_refused(tmp_path: Path, ids: Any, wanted: str) -> None:
    assert refusal(tmp_path, mooncake((0, 600, [0, 1]), (1, 600, ids))).startswith(wanted)


def test_blocks_in_csv_and_parquet(tmp_path: Path) -> None:
    text = 'timestamp,input_length,output_length,hash_ids\n0,600,1,"[0, 1]"\n\n1,600,1,"[0, 2]"\n'
    assert blocks_of(read(tmp_path, text)) == [[0, 1], [0, 2]]
    assert refusal(tmp_path, text.replace("[0, 2]", "[0")).startswith("line 4: hash_ids: must be, but is '[0'; give")
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    columns = {"timestamp": [0, 1], "input_length": [600, 600], "output_length": [1, 1], "hash_ids": [[0, 1], [0, 2]]}
    pandas.DataFrame(columns).to_parquet(tmp_path / "t")
    assert blocks_of(read_trace(tmp_path / "t")) == [[0, 1], [0, 2]]


def chat(name: int, parent: int, at: float, prompt: int, ids: list[int], turn: int) -> dict[str, Any]:
    return {"chat_id": name, "parent_chat_id": parent, "timestamp": at, "input_length": prompt, "output_length": 9,
            "type": "text", "turn": turn, "hash_ids": ids}  # fmt: skip


def test_chats_of_qwen_bailian(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        lines(
            chat(159, -1, 61.1, 33, [1, 2, 3], 1),
            chat(160, -1, 61.2, 16, [4], 1),
            chat(161, 159, 62.5, 50, [1, 2, 5, 6], 2),
            chat(162, 7, 63.0, 20, [8], 2),
            chat(163, 161, 64.0, 60, [1, 2, 5, 9], 3),
        ),
    )
    assert (trace.form, trace.by_answers) == ("Qwen-Bailian", False)
    assert trace.sessions is not None
    assert trace.sessions.after.tolist() == [-1, -1, 0, -1, 2]
    assert trace.sessions.turns.tolist() == [3, 1, 1]
    assert trace.sessions.thinks is None
    assert trace.blocks is not None
    assert trace.blocks.size == 16
    np.testing.assert_allclose(trace.arrival_time, [0, 0.1, 1.4, 1.9, 2.9])


def test_parts_of_one_trace_keep_blocks_and_chats(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("q-0.jsonl", "q-1.jsonl")]
    paths[0].write_text(lines(chat(1, -1, 0.0, 16, [1], 1), chat(2, 1, 5.0, 32, [1, 2], 2)))
    paths[1].write_text(lines(chat(3, -1, 6.0, 16, [1], 1), chat(4, 3, 9.0, 32, [1, 3], 2)))
    (joined,) = joined_parts([NamedTrace(read_trace(path)) for path in paths])
    assert blocks_of(joined.trace) == [[1], [1, 2], [1], [1, 3]]
    assert joined.trace.sessions is not None
    assert joined.trace.sessions.after.tolist() == [-1, 0, -1, 2]


def test_files_of_sessions_are_no_parts_of_each_other(tmp_path: Path) -> None:
    for name in ("a-0", "a-1"):
        (tmp_path / name).write_text(json.dumps(session()))
    read_apart = [NamedTrace(read_trace(tmp_path / name), "same") for name in ("a-0", "a-1")]
    assert len(joined_parts(read_apart)) == 2


def test_a_file_that_is_no_trace_at_all_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match=r"formats are .* sessions of agents"):
        read(tmp_path, "{}\n")
