"""An answer as files that run: engines, gateway, emulation, and a load that checks it."""

from __future__ import annotations

from pathlib import Path

from fluidgate.deployment import judge
from fluidgate.deployment.compose import compose_text
from fluidgate.deployment.emulation import emulation_script
from fluidgate.deployment.fleet import Fleet
from fluidgate.deployment.gateway import gateway_text, policy_files, scenario_files
from fluidgate.deployment.kubernetes import kubernetes_text
from fluidgate.deployment.load import check_script, requests_text, targets_text
from fluidgate.deployment.readme import readme_text
from fluidgate.deployment.sent import Sent
from fluidgate.deployment.vllm import vllm_script
from fluidgate.errors import FluidgateError
from fluidgate.sizing.answer import Sizing
from fluidgate.toml_file import fail, read_text, shown, write_whole

__all__ = ["check_folder", "save"]

LOG = "requests.log"
"""The gateway's request log, in the folder where it is started."""
SCRIPTS = ("check.sh", "emulate.sh", "vllm.sh")


def check_folder(folder: str | Path, *, force: bool = False) -> None:
    """Refuse a folder that can't be written to, or that may hold something else.

    Raises:
        FluidgateError: it is a file, its parent is missing, or it holds files already (unless `force`).
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        fail(str(path), ["is a file; give another folder"])
    if not path.exists() and not path.absolute().parent.is_dir():
        fail(str(path), [f"no folder {shown(str(path.parent))}; make it, or give another path"])
    if path.is_dir() and any(path.iterdir()) and not force:
        fail(str(path), ["holds files already; give another folder, or --force to replace those of the same names"])


def save(found: Sizing, folder: str | Path, *, force: bool = False, command: str | None = None) -> None:
    """Write what runs the best answer into a folder, which is made.

    Args:
        force: whether files of the same names are replaced.
        command: that made the answer, for its page.

    Raises:
        FluidgateError: nothing keeps the targets, no gateway runs the policy, or the folder can't be written.
    """
    if found.best is None:
        raise FluidgateError("--save: no choice keeps the targets, so there is nothing to run; give other choices")
    check_folder(folder, force=force)
    fleet = Fleet.of(found.best)
    sent = Sent.of(fleet, found.load, found.seed)
    texts = {
        "README.md": readme_text(fleet, found, sent, command),
        **scenario_files(fleet),
        "gateway.toml": gateway_text(fleet, {pool.label: fleet.urls(pool) for pool in fleet.pools}, LOG),
        "vllm.sh": vllm_script(fleet),
        "compose.yaml": compose_text(fleet),
        "kubernetes.yaml": kubernetes_text(fleet),
        "check.sh": check_script(fleet, sent, found.seed),
        "emulate.sh": emulation_script(fleet),
        "targets.json": targets_text(fleet, sent),
        "judge.py": read_text(judge.__file__, "a script"),
        **{f"requests/{name}": text for name, text in requests_text(fleet, sent).items()},
        **{name: read_text(path, "a policy file") for name, path in policy_files(fleet).items()},
    }
    root = Path(folder)
    try:
        (root / "requests").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(str(root), [f"cannot be made ({error.strerror}); give another folder"])
    for each, text in texts.items():
        write_whole(root / each, text)
    for each in SCRIPTS:
        (root / each).chmod(0o755)
