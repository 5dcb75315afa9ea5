"""`fluidgate warm` leaves nothing to compile for `fluidgate serve`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluidgate import find_policy, plan
from fluidgate.cli.app import main
from fluidgate.compiled import disk
from fluidgate.compiled.mode import is_interpreted
from fluidgate.gateway.dispatch import compilation, decisions, loads
from fluidgate.gateway.dispatch.compilation import compile_decisions
from fluidgate.gateway.dispatch.gated import Gated
from fluidgate.gateway.dispatch.placed import Placed
from fluidgate.model import Indicators
from fluidgate.policies.policy import Policy
from fluidgate.replanning import Estimator, estimator
from tests.scenarios import two_class_scenario

KERNELS = (decisions.moves, loads.ask, estimator.note_event)


@pytest.mark.skipif(is_interpreted(), reason="nothing is compiled")
def test_every_policy_finds_its_code() -> None:
    compile_decisions()
    compiled = [list(kernel.signatures) for kernel in KERNELS]
    assert all(len(signatures) == 1 for signatures in compiled)
    for of in (two_class_scenario(), two_class_scenario().replace(indicators=Indicators(max_solo_gap=0.2))):
        estimates = Estimator(of, 4, window=30.0, prior=60.0)
        for name in ("index-and-pool", "prioritize-and-route", "fi-wsp"):
            policy = find_policy(name)
            assert isinstance(policy, Policy)
            tables = policy.tabulate(plan(of, gpus=4), 4)
            for kv_tokens in (None, 10_000):
                gated = Gated(tables, 4, 16, 2, kv_tokens=kv_tokens, estimator=estimates, clock=lambda: 0.0)
                gated.engine_up(0, 0)
    for rule in ("round-robin", "least-loaded", "power-of-two", "lmetric"):
        Placed(rule, 4, 2, clock=lambda: 0.0).engine_up(0, 0)
    assert [list(kernel.signatures) for kernel in KERNELS] == compiled


def test_it_says_where_the_code_is(capsys: pytest.CaptureFixture[str]) -> None:
    main(["warm"])
    words = capsys.readouterr().out.strip()
    assert Path(words.removeprefix("the gateway's code is ready in ")).is_dir()


@pytest.mark.parametrize("folder", [None, Path("/proc")])
def test_what_is_not_kept_is_an_error_that_says_the_mend(
    folder: Path | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "folder", lambda: folder)
    monkeypatch.setattr(disk, "folder", lambda: folder)
    with pytest.raises(SystemExit) as leaving:
        main(["warm"])
    assert leaving.value.code == 2
    assert f"nothing could be kept in {folder or 'any folder'}; give XDG_CACHE_HOME" in capsys.readouterr().err
