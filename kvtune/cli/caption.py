"""``kvtune caption``: baseline beside preset."""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli.common import Json, out, print_json


def caption(
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE...")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model: a short name, a folder or a Hub id.")],
    preset: Annotated[
        str | None, typer.Option(help="Preset: a shipped name or a file; the model's published one when left out.")
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Ground truth (JSON): marks objects as in the picture or not.")
    ] = None,
    coco: Annotated[Path | None, typer.Option(help="COCO folder to take the ground truth from instead.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Question; the preset's when left out.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest caption; the preset's when left out.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    json: Json = False,
) -> None:
    """Caption images without a method and with a preset, and mark the objects that the captions name.

    Ground truth is looked up by the COCO id in the file's name.

    Example: kvtune caption COCO_val2014_000000000042.jpg --model llava-1.5 --preset preset.json --coco ~/coco
    """
    from kvtune.captioning.side_by_side import caption_pairs
    from kvtune.chair.spans import MentionFinder
    from kvtune.models import load_model
    from kvtune.presets import load_preset
    from kvtune.report.marked import captions_document, captions_view
    from kvtune.search.truth import truth_of_files

    chosen = load_preset(preset) if preset is not None else None
    truth = truth_of_files(images, ground_truth, coco)
    vlm = load_model(model, device=device, dtype=dtype)
    if chosen is None and vlm.published_preset is not None:
        chosen = load_preset(vlm.published_preset)
    pairs = caption_pairs(
        vlm,
        images,
        chosen.method() if chosen else None,
        prompt if prompt is not None or chosen is None else chosen.generation.prompt,
        max_new_tokens or (chosen.generation.max_new_tokens if chosen else 512),
    )
    finder = MentionFinder()
    if json:
        print_json(captions_document(vlm.name, chosen.name if chosen else None, pairs, truth, finder))
        return
    for pair in pairs:
        captions = [("baseline", pair.baseline.text)]
        if pair.treated is not None and chosen is not None:
            captions.append((f"preset {chosen.name}", pair.treated.text))
        out.print(captions_view(out, str(pair.image), captions, truth.get(pair.image), finder))
