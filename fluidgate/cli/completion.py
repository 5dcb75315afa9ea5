"""What a shell completes: files, policies and profiles; and `fluidgate completion`, the script that has it do so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class
from click.types import StringParamType

Names = Callable[[], Iterable[str]]

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_FLUIDGATE_COMPLETE"
"""By which the script asks for completions."""

FILES = (
    "SCENARIO",
    "TRACE...",
    "GATEWAY",
    "[MEASUREMENTS]",
    "[SCENARIO]",
    "FILE",
    "[CLASS=]FILE",
    "MEASUREMENTS",
    "LOG",
)
FOLDERS = ("DIR",)
POLICIES = ("policy", "policies")
PROFILES = ("profile", "profiles")
INDICATORS = ("max_prefill_gap", "max_solo_gap", "max_tpot")


@add_completion_class
class Bash(BashComplete):
    """Bash takes `--policy=NAME` for three words, the sign one of them."""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        return [word for k, word in enumerate(words) if word != "=" or not words[k - 1].startswith("--")], incomplete


class Paths(StringParamType):
    """The path of a file or folder, which the shell completes by itself."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type=self._kind)]


class Known(StringParamType):
    """Names, perhaps a list of them with commas; or the path of a file."""

    def __init__(self, names: Names, *, several: bool) -> None:
        self._names = names
        self._several = several

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, begun = incomplete.rpartition(",") if self._several else ("", "", incomplete)
        taken = before.split(",")
        found = [name for name in self._names() if name.startswith(begun) and name not in taken]
        if not found:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(f"{before}{comma}{name}") for name in found]


def policy_names() -> list[str]:
    from fluidgate.policies import ALIASES, all_policies

    return [*all_policies(), *ALIASES]


def profile_names() -> list[str]:
    from fluidgate.profiles import all_profiles

    return list(all_profiles())


def completed(command: click.Command) -> click.Command:
    """The command, whose files, policies and profiles are completed."""
    for param in command.params:
        kind = _kind(param)
        if kind is not None and isinstance(param.type, StringParamType):
            param.type = kind
    return command


def _kind(param: click.Parameter) -> StringParamType | None:
    if param.name in POLICIES:
        return Known(policy_names, several=param.multiple)
    if param.name in PROFILES:
        return Known(profile_names, several=param.multiple)
    if param.name == "indicator":
        return Known(lambda: INDICATORS, several=False)
    if param.metavar in FILES:
        return Paths("file")
    return Paths("dir") if param.metavar in FOLDERS else None


@click.command(short_help="Print what makes a shell complete commands and names.")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print the script by which SHELL completes commands, options, files, policies and profiles.

    \b
    bash:  fluidgate completion bash >> ~/.bashrc
    zsh:   fluidgate completion zsh >> ~/.zshrc
    fish:  fluidgate completion fish > ~/.config/fish/completions/fluidgate.fish

    Without SHELL it is that of the environment.
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    if chosen not in SHELLS:
        raise click.UsageError(f"SHELL: which of {', '.join(SHELLS)} is not said by the environment; name it", context)
    made = get_completion_class(chosen)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "fluidgate", VARIABLE).source())
