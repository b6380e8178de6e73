"""``kvtune bench engine``: the engine beside what it replaces, measured in one run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import flag, value
from kvtune.errors import RequestError
from kvtune.files import check_writable


def engine(
    model: opt.Model = "demo",
    images: Annotated[
        int | None,
        value("N", "Images of each arm that makes captions together.  [default: 192; CPU: 64; full: 256]", min=1),
    ] = None,
    random_weights: Annotated[bool, flag("Build the model full-size without its weights.", "--random-weights")] = False,
    method: Annotated[
        str | None,
        value("A,B,...|all", "Time decode steps alone, with each of these methods or stacks beside none."),
    ] = None,
    coco: Annotated[Path | None, value("DIR", "COCO folder; the demo brings its own scenes.")] = None,
    max_new_tokens: Annotated[int, value("N", "Longest caption in tokens.", min=1)] = 512,
    repeats: Annotated[
        int | None,
        value("N", "Times that all is measured, in turn.  [default: 2; full: 3; --method: 5]", min=1),
    ] = None,
    full: Annotated[
        bool,
        flag("Also 8 trials, batch sizes 8 to 256, more images, repeats and captions one at a time.", "--full"),
    ] = False,
    lanes: opt.Lanes = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    revision: opt.Revision = None,
    load_in_4bit: opt.LoadIn4Bit = False,
    load_in_8bit: opt.LoadIn8Bit = False,
    cuda_graphs: opt.CudaGraphs = True,
    seed: opt.Seed = 0,
    png: Annotated[Path | None, value("FILE", "Write a picture here.")] = None,
    json: opt.Json = False,
) -> None:
    """Measure captions a second: generate() one at a time and batched, the engine with none, 1 and 16 trials.

    On an H100, LLaVA-1.5-7B takes less than five minutes by arithmetic, with --full some twelve; with --images and
    --repeats it takes what you give it. A search's time can be extrapolated from 192 images on.

    The settings are the published preset, if the model has one, and draws from its search space with lambda_ref up to
    0.5, under which captions stay about as long as the model's own.

    With --random-weights caption lengths are forced to 60 to 160 tokens, because random weights end no text.

    An arm that does not fit into the device's memory takes a smaller batch and says so; one that cannot run is named
    at the end, and the others go on. Ctrl-C ends the bench early; what was measured until then is shown.

    With --method nothing is measured but decode steps of as many captions as --lanes says (64 on a CPU, what
    fits on a GPU): without a method and with each in turn, by wall time and by this process's own. Settings are from
    the middle of their ranges, in all layers.

    Example: kvtune bench engine --model demo --method all
    """
    from kvtune.bench.engine.run import BenchRequest, bench
    from kvtune.models.options import EngineOptions, ModelOptions
    from kvtune.report.terminal.engine_bench import (
        engine_figure,
        engine_lines,
        engine_table,
        methods_lines,
        methods_table,
    )

    if method is not None and (png is not None or full):
        raise RequestError("--png and --full are about arms, which --method leaves out; leave them out with it")
    options = ModelOptions(
        model, dtype, revision, load_in_4bit, load_in_8bit, random_weights, EngineOptions(device, lanes, cuda_graphs)
    )
    request = BenchRequest(
        options,
        images,
        coco,
        max_new_tokens,
        repeats,
        seed,
        full,
        method,
    )
    if png is not None:
        check_writable(png)
    result: dict[str, Any] = {}

    def show() -> None:
        if not result:
            return
        if png is not None and result["arms"]:
            engine_figure(result, png)
            err().print_line(f"wrote {png}")
        if json:
            print_json(result)
            return
        table, lines = (engine_table, engine_lines) if method is None else (methods_table, methods_lines)
        if method is not None or result["arms"]:
            out().print(table(result))
        out().say(*lines(result))

    try:
        bench(request, result.update)
    except KeyboardInterrupt:
        show()
        err().print("stopped")
        raise typer.Exit(130) from None
    except Exception:
        show()
        raise
    show()
