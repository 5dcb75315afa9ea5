"""The request log, fed with requests that have ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluidgate.errors import FluidgateError
from fluidgate.gateway.ended import RefusedRequest
from fluidgate.gateway.request_log import RequestLog
from tests.gateway.fakes import ended_request, waited_in_vain


def test_a_line_for_each(tmp_path: Path) -> None:
    log = RequestLog(str(tmp_path / "log"))
    log.ended(ended_request())
    log.ended(waited_in_vain())
    log.refused(RefusedRequest(404, "model_not_found", "/v1/" + "x" * 200, "mine", error="no such end point"))
    log.close()
    done, waited, refused = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert [done[name] for name in ("prefill_start", "first_token", "last_token", "end")] == [0.25, 1.0, 1.8, 2.0]
    assert (done["prefill_engine"], done["decode_engine"]) == ("http://one", "http://two")
    assert [waited[name] for name in ("prefill_start", "decode_engine", "end")] == [None, None, 3.0]
    assert (refused["status"], refused["outcome"], refused["client_id"]) == (404, "model_not_found", "mine")
    assert len(refused["path"]) == 100
    assert (done["error"], refused["error"]) == (None, "no such end point")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FluidgateError, match="give a file that can be written"):
        RequestLog(str(tmp_path / "no" / "folder"))
