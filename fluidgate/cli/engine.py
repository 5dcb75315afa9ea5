"""`fluidgate engine`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from fluidgate.cli.options import NUMBER, log_format_option, log_level_option
from fluidgate.cli.server_log import server_log

if TYPE_CHECKING:
    from fluidgate.emulator import EngineSettings
    from fluidgate.emulator.settings import EngineRole

PROFILE = "a100-40gb/qwen-8b"
BATCH_SIZE, CHUNK_SIZE = 16, 256


@click.command(short_help="Serve emulated inference engines, to try a gateway on.")
@click.argument("scenario", metavar="[SCENARIO]", required=False)
@click.option("--profile", metavar="NAME",
              help=f"Iteration times, shipped or a file.  [default: the scenario's, or {PROFILE}]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), metavar="B",
              help=f"Most requests in a batch.  [default: the scenario's, or {BATCH_SIZE}]")  # fmt: skip
@click.option("--chunk-size", type=click.IntRange(min=1), metavar="C",
              help=f"Prompt tokens of an iteration.  [default: the scenario's, or {CHUNK_SIZE}]")  # fmt: skip
@click.option("--count", default=1, show_default=True, metavar="K", help="Engines, on consecutive ports.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True,
              help="Port of the first; 0 for any free ones.")  # fmt: skip
@click.option("--kind", type=click.Choice(["vllm", "sglang", "openai"]), default="vllm", show_default=True,
              help="Whose API and metrics they have; openai: any other, which has no metrics.")  # fmt: skip
@click.option("--role", "roles", type=click.Choice(["null", "prefill", "decode"]), multiple=True,
              help="Side of SGLang's pairs that an engine takes; given twice, by turns.  [default: null]")  # fmt: skip
@click.option("--pair-timeout", type=NUMBER, default=300.0, show_default=True, metavar="S",
              help="How long one side of a pair waits for the other, s.")  # fmt: skip
@click.option("--model", default="emulated", show_default=True, metavar="NAME", help="Name of the model served.")
@click.option("--speed", type=NUMBER, default=1.0, show_default=True, metavar="X",
              help="All times of the engine are divided by X.")  # fmt: skip
@click.option("--batching", type=click.Choice(["single-prefill", "token-budget"]), default="single-prefill",
              show_default=True, help="How the batch of an iteration is formed.")  # fmt: skip
@click.option("--max-num-batched-tokens", "max_batched_tokens", type=click.IntRange(min=1), metavar="N",
              help="Tokens of an iteration under token-budget batching.  [default: C + B - 1]")  # fmt: skip
@click.option("--max-num-queued-reqs", "max_queued", type=click.IntRange(min=0), metavar="N",
              help="Requests that may wait; more are answered 503.  [default: no limit]")  # fmt: skip
@click.option("--max-model-len", type=click.IntRange(min=2), metavar="TOKENS",
              help="Most tokens of prompt and answer.  [default: 131072, or what the KV memory holds]")  # fmt: skip
@click.option("--kv-tokens", type=click.IntRange(min=1), metavar="TOKENS",
              help="KV memory.  [default: the scenario's, or B requests of the greatest length]")  # fmt: skip
@click.option("--prefix-caching/--no-prefix-caching", default=True, show_default=True,
              help="Whether KV that is there serves prompts that begin alike.")  # fmt: skip
@click.option("--kv-events", type=click.IntRange(1, 65535), metavar="PORT",
              help="Tell what the KV memory stores and removes, on this port and the next.")  # fmt: skip
@click.option("--kv-lease", type=NUMBER, default=30.0, show_default=True, metavar="S",
              help="How long KV is kept for a remote decode, s.")  # fmt: skip
@click.option("--transfer-latency", type=NUMBER, metavar="S",
              help="KV from another engine takes so long at least, s.  [default: the scenario's, or 0]")  # fmt: skip
@click.option("--transfer-bandwidth", type=float, metavar="TOKENS/S",
              help="And so many tokens a second.  [default: the scenario's, or no limit]")  # fmt: skip
@click.option("--kv-load-failure-policy", type=click.Choice(["fail", "recompute", "garbage"]), default="fail",
              show_default=True, help="What becomes of a request whose KV cannot be fetched.")  # fmt: skip
@click.option("--output-tokens", type=NUMBER, metavar="D",
              help="Mean length of answers that stop by themselves.  [default: the scenario's, or 128]")  # fmt: skip
@click.option("--grace", type=NUMBER, default=0.0, show_default=True, metavar="S",
              help="How late a request may still join an iteration that has begun, s.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the lengths of answers.")
@log_level_option
@log_format_option
def engine(
    scenario: str | None,
    profile: str | None,
    batch_size: int | None,
    chunk_size: int | None,
    count: int,
    roles: tuple[EngineRole, ...],
    host: str,
    port: int,
    log_level: str,
    log_format: str,
    **options: Any,
) -> None:
    """Serve emulated engines that speak vLLM's or SGLang's API, metrics and KV transfer, and take a GPU's time.

    SCENARIO gives the GPU, its engine and the mean length of answers. Ctrl-C ends it.
    """
    from fluidgate.emulator.serve import run_engines

    with server_log(log_level, log_format):
        settings = engine_settings(scenario, profile, batch_size, chunk_size, options)
        gpu = settings.gpu

        def ready(urls: list[str]) -> None:
            for url in urls:
                click.echo(f"engine on {url}: model {settings.model}, B = {gpu.batch_size}, C = {gpu.chunk_size}")

        run_engines(settings, count, roles=roles, host=host, port=port, ready=ready)


def engine_settings(
    scenario: str | None, profile: str | None, batch_size: int | None, chunk_size: int | None, options: dict[str, Any]
) -> EngineSettings:
    """The settings: what an option says, else the scenario, else the default.

    Raises:
        FluidgateError: scenario or profile are wrong, or a number is out of its range.
    """
    from fluidgate.emulator import EngineSettings
    from fluidgate.model import EngineModel, Gpu, Scenario
    from fluidgate.profiles import find_profile
    from fluidgate.profiles.kv_memory import kv_memory

    loaded = Scenario.load(scenario) if scenario is not None else None
    own_times = loaded is not None and profile is None
    known: dict[str, Any] = {}
    if loaded is not None:
        known["output_tokens"] = loaded.mean_output_tokens
        if own_times or not loaded.gpu.calibrated.kv_memory:
            known["kv_tokens"] = loaded.engine.kv_tokens
        known["data_parallel"] = loaded.engine.data_parallel
        known["transfer_latency"] = loaded.engine.transfer_latency
        known["transfer_bandwidth"] = loaded.engine.transfer_bandwidth or math.inf
    batch = batch_size or (loaded.gpu.batch_size if loaded else BATCH_SIZE)
    chunk = chunk_size or (loaded.gpu.chunk_size if loaded else CHUNK_SIZE)
    if loaded is not None and own_times:
        gpu = loaded.gpu.model_copy(update={"batch_size": batch, "chunk_size": chunk})
    else:
        found = find_profile(profile or PROFILE)
        gpu = Gpu(batch_size=batch, chunk_size=chunk, iteration=found.iteration, calibrated=found.calibrated)
        if known.get("kv_tokens") is None:
            known["kv_tokens"] = kv_memory(found, None, block=EngineModel().kv_block).tokens
    given = known | {name: value for name, value in options.items() if value is not None}
    if given.get("kv_tokens") is not None:
        given.setdefault("max_model_len", min(EngineSettings.max_model_len, given["kv_tokens"]))
    return EngineSettings(gpu=gpu, **given)
