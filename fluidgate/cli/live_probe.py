"""`fluidgate probe --url`: the options and the work of probing a live engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from fluidgate.cli.console import progress_bar, show, told, warn
from fluidgate.cli.options import NUMBER

Command = Callable[..., Any]

LIVE = (
    "api_key", "model", "batch_size", "chunk_size", "contexts", "read_before", "max_tokens", "max_seconds", "dry_run",
    "gpu", "engine", "tensor_parallel",
)  # fmt: skip
"""Options of the probe of a live engine alone."""

SHARED = ("batch_sizes", "chunk_sizes", "repeats", "dtype", "seed")
"""Options of both probes, with defaults of their own here."""


def sizes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """`1,8,16` as numbers; `none` as none."""
    if value is None:
        return ()
    if value.strip().lower() == "none":
        return ()
    words = [word.strip() for word in value.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit()):
            raise click.BadParameter(f"{word!r} is no whole number; give sizes such as 1,8,16")
    return tuple(int(word) for word in words)


def live_options(command: Command) -> Command:
    """The options that go with --url."""
    for option in reversed(
        (
            click.option("--url", metavar="URL", help="Measure the engine that serves there, as a client of its API."),
            click.option("--api-key", envvar="OPENAI_API_KEY", default="", metavar="KEY", show_envvar=True,
                         help="--url: sent as a bearer token."),
            click.option("--model", default="", metavar="NAME",
                         help="--url: the model that is asked.  [default: its first]"),
            click.option("--batch-size", type=int, metavar="B",
                         help="--url: most decodes held at once.  "
                              "[default: one less than the engine's batch, at most 32]"),
            click.option("--chunk-size", type=int, metavar="C",
                         help="--url: the engine's budget of tokens an iteration.  [default: found out]"),
            click.option("--contexts", metavar="TOKENS,...", callback=sizes,
                         help="--url: context of each decode.  "
                              "[default: 192 and half of what the model allows, at most 4096]"),
            click.option("--read-before", type=int, default=8192, show_default=True, metavar="TOKENS",
                         help="--url: of a long prompt, read before its last chunk; 0 for none."),
            click.option("--max-tokens", type=int, default=2_000_000, show_default=True, metavar="N",
                         help="--url: of prompts and answers together; the sizes are chosen to fit."),
            click.option("--max-seconds", type=NUMBER, default=600.0, show_default=True, metavar="S",
                         help="--url: how long it may take; the sizes are chosen to fit."),
            click.option("--dry-run", is_flag=True, help="--url: say what would be sent, and send nothing."),
            click.option("--gpu", default="", metavar="TEXT", help="--url: for the file's header, as the next two."),
            click.option("--engine", default="", metavar="TEXT",
                         help="Name and version.  [default: what the engine says]"),
            click.option("--tensor-parallel", type=int, metavar="N",
                         help="GPUs of the engine.  [default: what it says]"),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def live(url: str, output: str | None, as_json: bool, options: dict[str, Any], chosen: set[str]) -> None:
    """Probe an engine that runs."""
    import asyncio

    from fluidgate.calibration.live_probe import Settings, dry_run, probe_engine

    known = {name: options[name] for name in LIVE if name not in ("api_key", "dry_run")}
    known |= {name: options[name] for name in SHARED if name in chosen}
    settings = Settings(url=url, key=options["api_key"], **known)
    if options["dry_run"]:
        settings.check()
        click.echo(asyncio.run(dry_run(settings)))
        return
    with progress_bar("holding decodes") as update:
        made = probe_engine(settings, say=say, progress=update)
    if output is not None and made.rows:
        made.write(output)
    warn(made.warnings)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
    else:
        from fluidgate.reports.probe import live_table

        show(live_table(made))
        if output is not None and made.rows:
            told(f"Measurements written to {output}; next: fluidgate calibrate {output} --law linear")
    if made.partial == "interrupted":
        raise KeyboardInterrupt
    if made.partial:
        option = "--" + made.partial.replace("_", "-")
        warn([f"{option} was reached before all was measured; the file says that it is partial"])


def say(line: str) -> None:
    """A notice of the live probe, on standard error."""
    click.echo(f"fluidgate: {line}", err=True)
