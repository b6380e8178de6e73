"""``kvtune caption``: baseline beside preset."""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli import completion
from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import (
    Cluster,
    CudaGraphs,
    Device,
    Dtype,
    Json,
    Lanes,
    LoadIn4Bit,
    LoadIn8Bit,
    MixedWorkers,
    Model,
    Revision,
    Workers,
    value,
)
from kvtune.errors import RequestError
from kvtune.files import check_writable


def caption(
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGE")],
    model: Model,
    preset: Annotated[
        str | None,
        value(
            "NAME|FILE",
            "Preset: a shipped name or a file; the model's published one when left out.",
            complete=completion.presets,
        ),
    ] = None,
    ground_truth: Annotated[
        Path | None, value("FILE", "Ground truth (JSON): marks objects as in the picture or not.")
    ] = None,
    coco: Annotated[Path | None, value("DIR", "COCO folder to take the ground truth from instead.")] = None,
    prompt: Annotated[str | None, value("TEXT", "Question; the preset's when left out.")] = None,
    max_new_tokens: Annotated[int | None, value("N", "Longest caption; the preset's when left out.", min=1)] = None,
    revision: Revision = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_in_4bit: LoadIn4Bit = False,
    load_in_8bit: LoadIn8Bit = False,
    lanes: Lanes = "auto",
    cuda_graphs: CudaGraphs = True,
    workers: Workers = None,
    cluster: Cluster = None,
    mixed_workers: MixedWorkers = False,
    trace: Annotated[
        Path | None,
        value("DIR", "Folder to write what happened at each token to, as Parquet and pictures."),
    ] = None,
    objects: Annotated[
        list[str] | None,
        value("WORD", "Word to trace, again for more; else the objects in the picture or captions.", "--object"),
    ] = None,
    json: Json = False,
) -> None:
    """Caption images without a method and with a preset, and mark the objects that the captions name.

    Ground truth is looked up by the COCO id in the file's name. A trace has the row entropy and smoothing factor of
    each token and layer, and logit and rank of objects at each token; a word of several tokens stands by its first.

    Example: kvtune caption COCO_val2014_000000000042.jpg --model llava-1.5 --preset preset.json --coco ~/coco
    """
    from kvtune.coco import load_image

    for image in images:  # before anything heavy is loaded
        load_image(image)
    from kvtune.captioning import Captioner, open_captioner
    from kvtune.captioning.side_by_side import caption_pairs, trace_pairs
    from kvtune.captioning.trace import spellable, spelt
    from kvtune.chair.spans import MentionFinder
    from kvtune.coco.categories import truth_of_files
    from kvtune.models.options import model_options
    from kvtune.presets import load_preset
    from kvtune.report.data.mentions import vocabulary_words
    from kvtune.report.study_files import check_parquet
    from kvtune.report.terminal.caption import captions_document, captions_view
    from kvtune.report.trace_files import write_trace

    if trace is not None:
        check_parquet()
        check_writable(trace / "trace.png")
    elif objects:
        raise RequestError("--object says what --trace looks at; give --trace FOLDER too")
    chosen = load_preset(preset) if preset is not None else None
    truth = truth_of_files(images, ground_truth, coco)
    options = model_options(
        model,
        device,
        dtype,
        revision,
        load_in_4bit,
        load_in_8bit,
        lanes,
        cuda_graphs,
        workers=workers,
        cluster=cluster,
        mixed_workers=mixed_workers,
    )
    if trace is not None and options.engine.has_workers:
        raise RequestError("--trace looks into a model on one device; leave workers out, or --trace")
    captioner = open_captioner(options)
    vlm = captioner.vlm
    if chosen is None and vlm.published_preset is not None:
        published = load_preset(vlm.published_preset)
        chosen = published if published.model.layers == vlm.n_layers else None  # a folder may have any name
    method = chosen.method() if chosen else None
    captioner = captioner.changed(
        prompt=prompt if prompt is not None or chosen is None else chosen.generation.prompt,
        max_new_tokens=max_new_tokens or (chosen.generation.max_new_tokens if chosen else 512),
    )
    finder = MentionFinder()
    written: list[Path] = []
    if trace is None:
        pairs = caption_pairs(captioner, images, method)
    else:
        assert isinstance(captioner, Captioner)
        own = captioner.vlm
        words = spelt(own, objects) if objects else spellable(own, vocabulary_words())
        traced = trace_pairs(captioner, images, method, words)
        pairs = [each.captions for each in traced]
        written = write_trace(trace, traced, [truth.get(image) for image in images], objects or (), finder)
    if json:
        document = captions_document(vlm.name, chosen.name if chosen else None, pairs, truth, finder)
        print_json(document | {"trace": list(map(str, written))})
        return
    for pair in pairs:
        captions = [("baseline", pair.baseline.text)]
        if pair.treated is not None and chosen is not None:
            captions.append((f"preset {chosen.name}", pair.treated.text))
        out().print(captions_view(out(), str(pair.image), captions, truth.get(pair.image), finder))
    for path in written:
        err().print(f"wrote {path}", soft_wrap=True)
