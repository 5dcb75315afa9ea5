"""What is asked of a replay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fluidgate.errors import FluidgateError
from fluidgate.model import Arrivals
from fluidgate.simulation.options import Options, check_draws


@dataclass(frozen=True, repr=False)
class ReplayOptions(Options):
    """The options of a replay.

    Attributes:
        traces: names of the files.
        times, lengths, rate_scale: how they were played.
        requests: the most that were played; None for no limit.
        sessions_rate: starts of sessions a second over the whole cluster; None where no trace needs it.
    """

    fidelity: str = "iteration"
    traces: tuple[str, ...] = ()
    times: str = "once"
    lengths: str = "trace"
    rate_scale: float = 1.0
    requests: int | None = None
    sessions_rate: float | None = None

    @property
    def as_logged(self) -> bool:
        """Whether every request was played, with its own lengths, when it came."""
        played = (self.times, self.lengths, self.rate_scale, self.requests)
        return played == ("once", "trace", 1.0, None) and math.isinf(self.horizon) and self.warmup == 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "traces": self.traces,
            "times": self.times,
            "lengths": self.lengths,
            "rate_scale": self.rate_scale,
            "requests": self.requests,
            "sessions_rate": self.sessions_rate,
        }


def check_replay(
    *,
    times: str,
    lengths: str,
    rate_scale: float,
    match_load: bool,
    horizon: float | None,
    requests: int | None,
    warmup: float,
    replications: int,
    seed: int,
    arrivals: Arrivals,
    starts: bool = False,
) -> None:
    """Refuse options of a replay that do not go together, or that there can't be.

    Args:
        arrivals: the scenario's.
        starts: whether starts of sessions are drawn.

    Raises:
        FluidgateError: naming the option and the mend.
    """
    if not 0 < rate_scale < math.inf:
        raise FluidgateError(f"--rate-scale: must be above 0 and finite, but is {rate_scale:g}")
    if arrivals.closed:
        unread = {
            "--rate-scale": rate_scale != 1.0,
            "--match-load": match_load,
            "--times resample": times == "resample",
        }
        for option in (option for option, given in unread.items() if given):
            raise FluidgateError(
                f"{option}: not in a closed loop, which does not read when requests came; leave it out"
            )
    if match_load and rate_scale != 1.0:
        raise FluidgateError("--match-load: not together with --rate-scale; give one of them")
    if horizon is not None and not 0 < horizon < math.inf:
        raise FluidgateError(f"--horizon: must be a time above 0 s, but is {horizon:g}")
    if requests is not None and requests < 1:
        raise FluidgateError(f"--requests: must be at least 1, but is {requests}")
    if times != "once" and horizon is None and requests is None:
        raise FluidgateError(f"--times: {times} goes on without end; give --horizon or --requests too")
    if not 0 <= warmup < math.inf or (horizon is not None and warmup >= horizon):
        raise FluidgateError(f"--warmup: must be at least 0 and below the horizon, but is {warmup:g}")
    thinks = arrivals.think_law == "exponential" and arrivals.think > 0.0
    if replications > 1 and times != "resample" and lengths == "trace" and not (thinks or starts):
        raise FluidgateError(
            "--replications: a trace played as it is gives the same requests each time; "
            f"give {'--think-law exponential' if arrivals.closed else '--times resample'} or --lengths drawn too"
        )
    check_draws(replications, seed)
