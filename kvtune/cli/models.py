"""``kvtune models``: what there is and what is here; one checked; MiniGPT-4 made of its files."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kvtune.cli import options as opt
from kvtune.cli.commands import Command, group
from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import flag, value

app = group(invoke_without_command=True)


@app.callback()
def models(context: typer.Context, json: opt.Json = False) -> None:
    """List the models: what each needs, whether it is here, its published preset.

    Any other checkpoint of these families works by its folder or its Hub id.

    Example: kvtune models
    """
    if context.invoked_subcommand is not None:
        return
    from kvtune.models.availability import presences
    from kvtune.report.terminal.models import models_view

    found = presences()
    if json:
        print_json([presence.to_dict() for presence in found])
        return
    for part in models_view(found, out()):
        out().print(part, soft_wrap=True)


@app.command(cls=Command)
def check(
    name: opt.ModelName,
    image: Annotated[
        list[Path] | None,
        value("FILE", "Image to caption, as often as there are; two scenes of the demo's when left out."),
    ] = None,
    png: Annotated[
        Path | None, value("FILE", "Draw where the first image's visual tokens are, over what the model sees of it.")
    ] = None,
    random_weights: Annotated[
        bool,
        flag("Build the model with random weights and few layers; its weights need not be here.", "--random-weights"),
    ] = False,
    prompt: Annotated[str | None, value("TEXT", "Question; the family's when left out.")] = None,
    max_new_tokens: Annotated[int, value("N", "Longest caption in tokens.", min=1)] = 128,
    revision: opt.Revision = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    load_in_4bit: opt.LoadIn4Bit = False,
    load_in_8bit: opt.LoadIn8Bit = False,
    gpus_per_worker: opt.GpusPerWorker = 1,
    json: opt.Json = False,
) -> None:
    """Prove a model: what kvtune's engine writes about two images is what generate() writes, token by token.

    Without a method and under each that can serve the model; in half precision on a GPU in float32 too, if it fits.
    Says where the visual tokens are, and what the model takes.

    Example: kvtune models check llava-1.5 --image cat.jpg --png tokens.png
    """
    from PIL import Image

    from kvtune.captioning.draw_places import write_places
    from kvtune.captioning.model_check import check_model
    from kvtune.coco import load_image
    from kvtune.demo.coco import FIRST_ID
    from kvtune.demo.scenes import render
    from kvtune.errors import RequestError
    from kvtune.models.fewer_layers import random_with_fewer_layers
    from kvtune.models.opening import check_options, open_model
    from kvtune.models.options import EngineOptions, ModelOptions
    from kvtune.report.terminal.models import check_lines

    pictures = [load_image(one) for one in image or ()]
    pictures = pictures or [Image.fromarray(render(0, FIRST_ID + number).pixels) for number in range(2)]
    engine = EngineOptions(device, gpus_per_worker=gpus_per_worker)
    options = ModelOptions(name, dtype, revision, load_in_4bit, load_in_8bit, engine=engine)
    check_options(options)
    if random_weights and gpus_per_worker > 1:
        raise RequestError("--random-weights builds a few layers, on one GPU; leave --gpus-per-worker out")
    vlm = random_with_fewer_layers(name, device, dtype, revision) if random_weights else open_model(options)
    if png is not None:
        write_places(png, vlm, pictures[0], prompt)
    checked = check_model(vlm, pictures, prompt, max_new_tokens)
    if json:
        print_json(checked.to_dict())
    else:
        out().say(*check_lines(checked))
    if checked.proven is False:
        raise typer.Exit(1)


@app.command(cls=Command)
def convert(
    model: Annotated[Literal["minigpt4"], typer.Argument(help="What to make: minigpt4.", metavar="MODEL")],
    vicuna: Annotated[Path, value("DIR", "Folder of Vicuna-7B v0 (Vision-CAIR/vicuna-7b).")],
    eva: Annotated[Path, value("FILE", "eva_vit_g.pth.")],
    qformer: Annotated[Path, value("FILE", "blip2_pretrained_flant5xxl.pth.")],
    checkpoint: Annotated[Path, value("FILE", "prerained_minigpt4_7b.pth.")],
    to: Annotated[
        Path | None,
        value("DIR", "Folder to write; $KVTUNE_MODELS/minigpt4 when left out.", "--out"),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Make one folder of MiniGPT-4's published files; --model minigpt4 finds it.

    Every tensor is mapped by name, and what was written is read back and compared. Takes some 20 GiB of memory and
    16 GiB of disk.

    Example: kvtune models convert minigpt4 --vicuna vicuna-7b --eva eva_vit_g.pth
    --qformer blip2_pretrained_flant5xxl.pth --checkpoint prerained_minigpt4_7b.pth
    """
    from kvtune.models.hub import models_folder
    from kvtune.models.minigpt4.convert import convert_minigpt4

    made = convert_minigpt4(vicuna, eva, qformer, checkpoint, to or models_folder() / model, err().print_line)
    if json:
        print_json({"out": str(made.folder), "tensors": made.tensors, "parameters": made.parameters})
        return
    out().print_line(
        f"{made.folder}: {made.tensors} tensors, {made.parameters / 1e9:.2f} B parameters; "
        f"try kvtune models check {model if to is None else made.folder}"
    )
