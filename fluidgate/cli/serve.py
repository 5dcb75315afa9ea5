"""`fluidgate serve`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from fluidgate.cli.options import log_format_option, log_level_option, one_policy
from fluidgate.cli.server_log import server_log

if TYPE_CHECKING:
    from fluidgate.gateway.gateway_file import GatewaySettings


log = logging.getLogger("fluidgate.gateway")


@click.command(short_help="The gateway: gate-and-route in front of real engines.")
@click.argument("gateway_file", metavar="GATEWAY")
@click.option("--host", help="Address to listen on, in the place of the file's.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, in the place of the file's.")
@click.option("--policy", callback=one_policy, help="Policy, in the place of the file's.")
@click.option("--check", is_flag=True, help="Check the file and the engines, then leave.")
@log_level_option
@log_format_option
def serve(
    gateway_file: str,
    host: str | None,
    port: int | None,
    policy: str | None,
    check: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Serve OpenAI's API in front of the engines of GATEWAY, a TOML file.

    Prefills are held back by class and decodes placed after their prefill, as the policy decides. SIGTERM and Ctrl-C
    let requests under way end first; a second signal ends them. SIGHUP reads GATEWAY anew.
    """
    import asyncio

    from fluidgate.event_loop import fast_loop
    from fluidgate.gateway.gateway_file import GatewaySettings

    with server_log(log_level, log_format), asyncio.Runner(loop_factory=fast_loop()) as runner:
        settings = GatewaySettings.load(gateway_file, host=host, port=port, policy=policy)
        runner.run(checked(settings) if check else run(settings))


async def run(settings: GatewaySettings) -> None:
    from fluidgate.gateway.client.running import serve as serve_gateway

    await serve_gateway(settings, started=lambda url: log.info("gateway on %s", url))


async def checked(settings: GatewaySettings) -> None:
    from fluidgate.gateway.client.running import check as check_gateway

    for group in (await check_gateway(settings)).groups:
        backends = group.backends
        if not len(backends):
            click.echo(f"no engine of group {group.settings.name} is found so far")
            continue
        click.echo(f"{backends.up_count} of {len(backends)} engines answer and serve {', '.join(backends.models)}")
