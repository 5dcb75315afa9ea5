"""`fluidgate probe`."""

from __future__ import annotations

import json
from typing import Any

import click
from click.core import ParameterSource

from fluidgate.cli.console import progress_bar, show, told
from fluidgate.cli.live_probe import LIVE, live, live_options, sizes
from fluidgate.cli.options import file_path, json_option

KERNELS = (
    "preset_name", "layers", "hidden", "heads", "kv_heads", "head_dim", "feed_forward", "vocabulary", "context",
    "chunk_context", "cache", "block_size", "device", "warmup", "threads", "share_layers", "cuda_graphs",
)  # fmt: skip
"""Options of the probe in PyTorch alone."""


@click.command(short_help="Measure iteration times, of a live engine or in PyTorch.")
@click.option("-o", "--output", metavar="FILE", callback=file_path,
              help="The measurement file (CSV) to write; without it only the table is shown.")  # fmt: skip
@live_options
@click.option("--preset", "preset_name", default="llama-3.1-8b", show_default=True, metavar="NAME",
              help="Shape of the model: llama-3.1-8b, qwen3-8b or tiny.")  # fmt: skip
@click.option("--layers", type=int, metavar="N", help="Instead of the preset's, as the next six.")
@click.option("--hidden", type=int, metavar="N", help="Width of the residual stream.")
@click.option("--heads", type=int, metavar="N", help="Query heads.")
@click.option("--kv-heads", type=int, metavar="N", help="Key and value heads.")
@click.option("--head-dim", type=int, metavar="N", help="Width of a head.")
@click.option("--feed-forward", type=int, metavar="N", help="Inner width of SwiGLU.")
@click.option("--vocabulary", type=int, metavar="N", help="Tokens of the vocabulary.")
@click.option("--batch-sizes", default="1,8,16,32", show_default=True, metavar="B,...", callback=sizes,
              help="Requests in a batch: B decodes, or B-1 beside a prefill chunk; with --url decodes in both, by "
              "default powers of two.")  # fmt: skip
@click.option("--chunk-sizes", default="64,128,256,512,1024", show_default=True, metavar="C,...", callback=sizes,
              help="Prompt tokens of a chunk; 'none' for solo iterations only. With --url by default powers of two up "
              "to the budget.")  # fmt: skip
@click.option("--context", default=1024, show_default=True, metavar="TOKENS",
              help="Tokens that each decode has in the cache before its new one.")  # fmt: skip
@click.option("--chunk-context", type=int, metavar="TOKENS",
              help="Tokens of the prompt read before the chunk.  [default: half of --context]")  # fmt: skip
@click.option("--cache", default="paged", show_default=True, metavar="KIND", help="paged or contiguous.")
@click.option("--block-size", default=16, show_default=True, metavar="TOKENS", help="Block of the paged cache.")
@click.option("--dtype", default="bfloat16", show_default=True, metavar="TYPE",
              help="bfloat16, float16 or float32; with --url what the engine runs in, for the header.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu or cuda.")
@click.option("--warmup", default=1, show_default=True, metavar="N", help="Iterations before each timed one.")
@click.option(
    "--repeats", default=10, show_default=True, metavar="N", help="Timed iterations of each kind; 5 with --url."
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    help="Seed of weights, cache and tokens; with --url of the prompts, by default another each time.",
)
@click.option("--threads", type=int, metavar="N", help="Threads on the CPU.  [default: one a core]")
@click.option("--share-layers", is_flag=True, help="Let all layers use the weights of one, to save memory.")
@click.option("--cuda-graphs", is_flag=True, help="On CUDA, record iterations as graphs, which launch no kernels.")
@json_option
@click.pass_context
def probe(command: click.Context, /, output: str | None, url: str | None, as_json: bool, **options: Any) -> None:
    """Time iterations, for `fluidgate calibrate`: of a live engine with --url, else of a model in PyTorch.

    With --url decodes are held running in the engine, prompts are sent in beside them, and the gaps between tokens are
    read: the engine's own times, with all overheads. It says what it will send before it sends it; Ctrl-C keeps what
    was measured.

    Without it, iterations of a transformer with random weights are timed on this machine. Solo iterations have B
    decodes, mixed ones B-1 decodes and a chunk of C prompt tokens. Needs PyTorch: pip install 'fluidgate[probe]'.
    """
    chosen = {name for name in options if command.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    misplaced = [name for name in (LIVE if url is None else KERNELS) if name in chosen]
    if misplaced:
        option = "--" + misplaced[0].removesuffix("_name").replace("_", "-")
        what = (
            "needs --url; give it, or leave the option out" if url is None else "does not go with --url; leave it out"
        )
        raise click.UsageError(f"{option} {what}", command)
    if url is not None:
        live(url, output, as_json, options, chosen)
    else:
        kernels(output, as_json, {name: value for name, value in options.items() if name not in LIVE})


def kernels(output: str | None, as_json: bool, options: dict[str, Any]) -> None:
    """Probe this machine with a model in PyTorch."""
    from fluidgate.calibration.probe import preset
    from fluidgate.calibration.probe import probe as measure

    keys = ("layers", "hidden", "heads", "kv_heads", "head_dim", "feed_forward", "vocabulary")
    shape = preset(options.pop("preset_name")).changed({key: options.pop(key) for key in keys})
    with progress_bar("timing iterations") as update:
        made = measure(shape, progress=update, **options)
    if output is not None:
        made.write(output)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
        return
    from fluidgate.reports.probe import measurement_table

    show(measurement_table(made))
    if output is not None:
        told(f"Measurements written to {output}; next: fluidgate calibrate {output} --map batch_size=requests")
