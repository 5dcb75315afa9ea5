"""`fluidgate probe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluidgate.cli.console import progress_bar, show
from fluidgate.cli.options import json_option

if TYPE_CHECKING:
    from rich.table import Table

    from fluidgate.calibration.probe import Measurements


def sizes(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,8,16` as numbers; `none` as none."""
    if value.strip().lower() == "none":
        return ()
    words = [word.strip() for word in value.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit()):
            raise click.BadParameter(f"{word!r} is no whole number; give sizes such as 1,8,16")
    return tuple(int(word) for word in words)


def writable(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a file that could not be written before the work for it begins."""
    if value is not None and (Path(value).is_dir() or not Path(value).parent.is_dir()):
        raise click.BadParameter(f"'{value}' is a folder, or its folder does not exist; give the path of a file")
    return value


@click.command(short_help="Measure iteration times in PyTorch.")
@click.option("-o", "--output", metavar="FILE", callback=writable,
              help="The measurement file (CSV) to write; without it only the table is shown.")  # fmt: skip
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
              help="Requests in a batch: B decodes, or B-1 beside a prefill chunk.")  # fmt: skip
@click.option("--chunk-sizes", default="64,128,256,512,1024", show_default=True, metavar="C,...", callback=sizes,
              help="Prompt tokens of a chunk; 'none' for solo iterations only.")  # fmt: skip
@click.option("--context", default=1024, show_default=True, metavar="TOKENS",
              help="Tokens that each decode has in the cache before its new one.")  # fmt: skip
@click.option("--chunk-context", type=int, metavar="TOKENS",
              help="Tokens of the prompt read before the chunk.  [default: half of --context]")  # fmt: skip
@click.option("--cache", default="paged", show_default=True, metavar="KIND", help="paged or contiguous.")
@click.option("--block-size", default=16, show_default=True, metavar="TOKENS", help="Block of the paged cache.")
@click.option("--dtype", default="bfloat16", show_default=True, metavar="TYPE", help="bfloat16, float16 or float32.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu or cuda.")
@click.option("--warmup", default=1, show_default=True, metavar="N", help="Iterations before each timed one.")
@click.option("--repeats", default=10, show_default=True, metavar="N", help="Timed iterations of each kind.")
@click.option("--seed", default=0, show_default=True, help="Seed of weights, cache and tokens.")
@click.option("--threads", type=int, metavar="N", help="Threads on the CPU.  [default: one a core]")
@click.option("--share-layers", is_flag=True, help="Let all layers use the weights of one, to save memory.")
@click.option("--cuda-graphs", is_flag=True, help="On CUDA, record iterations as graphs, which launch no kernels.")
@json_option
def probe(
    output: str | None,
    preset_name: str,
    layers: int | None,
    hidden: int | None,
    heads: int | None,
    kv_heads: int | None,
    head_dim: int | None,
    feed_forward: int | None,
    vocabulary: int | None,
    as_json: bool,
    **options: object,
) -> None:
    """Time iterations of a transformer with random weights on this machine, for `fluidgate calibrate`.

    Solo iterations have B decodes, mixed ones B-1 decodes and a chunk of C prompt tokens. Needs PyTorch:
    pip install 'fluidgate[probe]'.
    """
    from fluidgate.calibration.probe import preset
    from fluidgate.calibration.probe import probe as measure

    shape = preset(preset_name).changed(
        {"layers": layers, "hidden": hidden, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim,
         "feed_forward": feed_forward, "vocabulary": vocabulary}
    )  # fmt: skip
    with progress_bar("timing iterations") as update:
        made = measure(shape, progress=update, **options)  # type: ignore[arg-type]
    if output is not None:
        made.write(output)
    if as_json:
        click.echo(json.dumps(made.to_dict(), indent=2))
        return
    show(measurement_table(made))
    if output is not None:
        click.echo(f"Measurements written to {output}; next: fluidgate calibrate {output} --map batch_size=requests")


def measurement_table(made: Measurements) -> Table:
    """Median and range of the iteration times, ms."""
    from fluidgate.reports.tables import number, table

    settings = made.settings
    title = f"{settings.shape.name}, {number(made.parameters / 1e9, 3)} B parameters, {settings.dtype}, {made.device}"
    rows = table(title, "iteration", "requests B", "decodes", "chunk C", "median", "least", "most", text=1)
    for each in made.measurements:
        case = each.case
        times = (f"{number(1000 * seconds)} ms" for seconds in (each.median, min(each.seconds), max(each.seconds)))
        kind = "mixed" if case.chunk_size else "solo"
        rows.add_row(kind, str(case.requests), str(case.decodes), str(case.chunk_size), *times)
    return rows
