"""The policy of a name: listed, in a policy file, or in a Python file of one's own."""

from __future__ import annotations

import os
from pathlib import Path

from fluidgate.arguments import checked
from fluidgate.errors import FluidgateError
from fluidgate.policies.catalogue import REPLAN, listed_policy
from fluidgate.policies.own_file import is_own, own_policy
from fluidgate.policies.placed import PlacedPolicy
from fluidgate.policies.policy import Policy
from fluidgate.policies.policy_file import load_policy
from fluidgate.wording import named


@checked
def find_any_policy(name: str | os.PathLike[str], folder: str | Path = "") -> Policy | PlacedPolicy:
    """The policy of that name or alias, of the policy file at that path (`PATH.toml`), or of `PATH.py:NAME`.

    Args:
        folder: where relative paths start; the working folder if empty.

    Raises:
        FluidgateError: no policy has that name, and the message gives the nearest; or the file is wrong.
    """
    name = os.fspath(name)
    if is_own(name):
        return own_policy(name, folder)
    if name.endswith(".toml"):
        return load_policy(Path(folder, name) if folder else name)
    try:
        return listed_policy(name)
    except FluidgateError:
        path = Path(folder, name.rpartition(":")[0] or name)
        if name.endswith(REPLAN) or not path.exists():
            raise
        what = "folder" if path.is_dir() else "file"
        raise FluidgateError(
            f"policy '{name}': a {what}, and no policy; a policy file ends in .toml, one of your own is PATH.py:NAME"
        ) from None


@checked
def find_policy(name: str | os.PathLike[str]) -> Policy:
    """The same for policies that read a plan, which every fidelity runs.

    Raises:
        FluidgateError: as `find_any_policy`; or it is a published serving policy.
    """
    return planned_policy(name, f"; find_any_policy('{name}') is the policy itself")


def planned_policy(name: str | os.PathLike[str], mend: str = "") -> Policy:
    """As `find_policy`.

    Args:
        mend: what else one may do in Python.
    """
    policy = find_any_policy(name)
    if isinstance(policy, Policy):
        return policy
    raise FluidgateError(
        f"policy '{name}' batches in its own way, which only the fidelity of iterations has; "
        f"simulate or compare it with --fidelity iteration, or replay a trace{named('', mend)}"
    )
