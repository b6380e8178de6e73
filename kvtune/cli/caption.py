"""``kvtune caption``: baseline beside preset, or the preset at work on any number of images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvtune.cli import completion
from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json, resumable
from kvtune.cli.options import flag, value
from kvtune.cli.progress import captions_progress, progress
from kvtune.errors import RequestError
from kvtune.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kvtune.apply.at_work import Job
    from kvtune.apply.with_preset import WithPreset
    from kvtune.captioning.side_by_side import Pair
    from kvtune.chair.spans import MentionFinder

_FILE = "A captions file"
_TRACE = "A look inside"


def caption(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders of images, or lists: .txt, or - for standard input, a path a line.",
            metavar="IMAGE|DIR|LIST",
        ),
    ],
    model: opt.Model,
    preset: Annotated[
        str | None,
        value(
            "NAME|FILE",
            "Preset: a shipped name or a file; the model's published one when left out; none for no method.",
            complete=completion.presets,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        value("FILE", "Write the preset's captions here, and no others: JSON lines.", "--out", panel=_FILE),
    ] = None,
    skip_broken: Annotated[
        bool, flag("Leave out images that cannot be read, and list them.", "--skip-broken", panel=_FILE)
    ] = False,
    ground_truth: Annotated[
        Path | None, value("FILE", "Ground truth (JSON): marks objects as in the picture or not.")
    ] = None,
    coco: Annotated[Path | None, value("DIR", "COCO folder to take the ground truth from instead.")] = None,
    prompt: Annotated[str | None, value("TEXT", "Question; the preset's when left out.")] = None,
    max_new_tokens: Annotated[int | None, value("N", "Longest caption; the preset's when left out.", min=1)] = None,
    revision: opt.Revision = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    load_in_4bit: opt.LoadIn4Bit = False,
    load_in_8bit: opt.LoadIn8Bit = False,
    lanes: opt.Lanes = "auto",
    cuda_graphs: opt.CudaGraphs = True,
    workers: opt.Workers = None,
    cluster: opt.Cluster = None,
    mixed_workers: opt.MixedWorkers = False,
    gpus_per_worker: opt.GpusPerWorker = 1,
    trace: Annotated[
        Path | None,
        value("DIR", "Folder to write what happened at each token to, as Parquet and pictures.", panel=_TRACE),
    ] = None,
    objects: Annotated[
        list[str] | None,
        value(
            "WORD",
            "Word to trace, again for more; else the objects in the picture or captions.",
            "--object",
            panel=_TRACE,
        ),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Caption images without a method and with a preset, and mark the objects that the captions name.

    Ground truth is looked up by the COCO id in the file's name. A trace has the row entropy and smoothing factor of
    each token and layer, and logit and rank of objects at each token; a word of several tokens stands by its first.

    With --out, the preset captions any number of images into one file, which kvtune score reads where they are
    COCO's. A line is written as its caption ends; the same command again goes on where the last one stopped. An image
    is called by COCO's id if its file has a name of COCO's, else by its path, within the folder that was given. Beside
    FILE, FILE.about.json keeps what wrote it, and which images were left out.

    Examples:

    kvtune caption COCO_val2014_000000000042.jpg --model llava-1.5 --preset preset.json --coco ~/coco

    kvtune caption photos --model llava-1.5 --preset preset.json --out captions.jsonl --skip-broken
    """
    from kvtune.apply.at_work import Job
    from kvtune.apply.image_list import list_images
    from kvtune.apply.with_preset import choose_preset, open_with_preset, readable_images_for
    from kvtune.models.options import EngineOptions, ModelOptions

    named = list_images(images)
    choice = choose_preset(preset)
    engine = EngineOptions(device, lanes, cuda_graphs, workers, cluster, mixed_workers, gpus_per_worker)
    options = ModelOptions(model, dtype, revision, load_in_4bit, load_in_8bit, engine=engine)
    if to is not None:
        shown = {"--ground-truth": ground_truth, "--coco": coco, "--trace": trace, "--object": objects}
        if given := next((option for option, what in shown.items() if what), None):
            raise RequestError(f"{given} is for captions that are shown, and --out for those in a file; leave one out")
        _write_captions(Job(named, to, options, choice, prompt, max_new_tokens, skip_broken), json)
        return
    readable, broken = readable_images_for(options, named, skip_broken)  # before anything heavy is loaded
    files = [path for _, path in readable]
    from kvtune.captioning.side_by_side import caption_pairs
    from kvtune.chair.spans import MentionFinder
    from kvtune.coco.truth import truth_of_files
    from kvtune.report.data.caption import captions_document
    from kvtune.report.study_files import check_parquet
    from kvtune.report.terminal.caption import captions_view

    for path, why in broken.items():
        err().print_line(f"skipped {path}: {why}")
    if trace is not None:
        check_parquet()
        check_writable(trace / "trace.png")
    elif objects:
        raise RequestError("--object says what --trace looks at; give --trace FOLDER too")
    if trace is not None and (options.engine.has_workers or options.engine.gpus_per_worker > 1):
        raise RequestError("--trace looks into a model on one device; leave workers out, or --trace")
    truth = truth_of_files(files, ground_truth, coco)
    work = open_with_preset(options, choice, prompt, max_new_tokens)
    captioner, finder = work.captioner, MentionFinder()
    written: list[Path] = []
    if trace is None:
        pairs = caption_pairs(captioner, files, work.method)
    else:
        pairs, written = _traced(trace, work, files, [truth.get(image) for image in files], objects or (), finder)
    name = work.preset.name if work.preset else None
    if json:
        document = captions_document(captioner.vlm.name, name, pairs, truth, finder)
        print_json(document | {"prompt": captioner.question, "trace": list(map(str, written))})
        return
    for pair in pairs:
        captions = [("baseline", pair.baseline.text)]
        if pair.treated is not None:
            captions.append((f"preset {name}", pair.treated.text))
        out().print(str(pair.image), style="bold", soft_wrap=True)
        out().print(captions_view(out(), captions, truth.get(pair.image), finder))
    for path in written:
        err().print_line(f"wrote {path}")


def _traced(
    folder: Path,
    work: "WithPreset",
    files: list[Path],
    truths: "Sequence[Collection[str] | None]",
    objects: "Sequence[str]",
    finder: "MentionFinder",
) -> tuple[list["Pair"], list[Path]]:
    """Caption the images and write what happened at each token; the captions, and the files."""
    from kvtune.captioning import Captioner
    from kvtune.captioning.side_by_side import trace_pairs
    from kvtune.captioning.trace import spellable, spelt
    from kvtune.report.data.mentions import vocabulary_words
    from kvtune.report.trace_files import write_trace

    assert isinstance(work.captioner, Captioner)
    own = work.captioner.vlm
    words = spelt(own, objects) if objects else spellable(own, vocabulary_words())
    traced = trace_pairs(work.captioner, files, work.method, words)
    return [each.captions for each in traced], write_trace(folder, traced, truths, objects, finder)


def _write_captions(job: "Job", json: bool) -> None:
    from kvtune.apply.at_work import caption_into_file
    from kvtune.report.data.caption import applied_document
    from kvtune.report.terminal.caption import applied_lines

    with resumable(), progress("images checked") as on_checked, captions_progress("captions") as on_progress:
        done = caption_into_file(job, on_checked, on_progress, err().say)
    if json:
        print_json(applied_document(job, done))
        return
    out().say(*applied_lines(job, done))
