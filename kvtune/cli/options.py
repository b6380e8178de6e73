"""Options that several commands have, each declared once."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kvtune.cli import completion
from kvtune.study import search_defaults
from kvtune.study.search_defaults import SamplerName
from kvtune.study.study_folder import DEFAULT_STUDIES

STUDIES = DEFAULT_STUDIES

MODEL, IMAGES, TRIALS, RACING, FILES = "Model", "Images", "Trials", "Racing and floors", "Files"
"""Headings of the help."""

Names = Callable[..., list[str]]
"""What completes a name at a press of Tab; see :mod:`kvtune.cli.completion`."""


def value(
    stands_for: str, help: str, *names: str, panel: str | None = None, complete: Names | None = None, **more: Any
) -> Any:
    """An option with a value, for ``Annotated``; ``stands_for`` is how the help writes the value."""
    return typer.Option(*names, metavar=stands_for, help=help, rich_help_panel=panel, autocompletion=complete, **more)


def flag(help: str, *names: str, panel: str | None = None) -> Any:
    """An option that is there or not, for ``Annotated``."""
    return typer.Option(*names, help=help, rich_help_panel=panel)


Model = Annotated[
    str,
    value("NAME", "A short name, a folder or a Hub id.", "--model", "-m", panel=MODEL, complete=completion.models),
]
ModelName = Annotated[
    str,
    typer.Argument(help="A short name, a folder or a Hub id.", metavar="NAME", autocompletion=completion.models),
]
Revision = Annotated[str | None, value("NAME", "Branch, tag or commit of weights on the Hub.", panel=MODEL)]
Dtype = Annotated[str, value("TYPE", "auto, float32, bfloat16 or float16.", panel=MODEL)]
LoadIn4Bit = Annotated[bool, flag("Quantize the language model's weights to 4 bits.", "--load-in-4bit", panel=MODEL)]
LoadIn8Bit = Annotated[bool, flag("Quantize the language model's weights to 8 bits.", "--load-in-8bit", panel=MODEL)]
Device = Annotated[str, value("DEVICE", "auto, cpu, cuda or cuda:N; several with commas.", panel=MODEL)]
Lanes = Annotated[str, value("N", "Captions decoded at once: auto or a number.", panel=MODEL)]
CudaGraphs = Annotated[
    bool, flag("Replay decode steps from CUDA graphs, on a GPU.", "--cuda-graphs/--no-cuda-graphs", panel=MODEL)
]
Workers = Annotated[
    int | None, value("N", "Workers, a device each; on a cluster all its GPUs when left out.", panel=MODEL)
]
GpusPerWorker = Annotated[int, value("N", "GPUs that a model too large for one is divided among.", panel=MODEL)]
Cluster = Annotated[str | None, value("ADDRESS", "Ray cluster to write captions on: auto or HOST:PORT.", panel=MODEL)]
MixedWorkers = Annotated[
    bool, flag("Let workers differ in devices and package versions.", "--mixed-workers", panel=MODEL)
]

Coco = Annotated[
    Path | None,
    value("DIR", "COCO folder; else $KVTUNE_COCO, else ~/.cache/kvtune/coco.", panel=IMAGES),
]
StudyCoco = Annotated[Path | None, value("DIR", "COCO folder; the study's when left out.", panel=IMAGES)]
InstancesOnly = Annotated[
    bool, flag("Ground truth of COCO's instances alone, without reference captions.", "--instances-only", panel=IMAGES)
]
ImageKey = Annotated[
    str, value("FIELD", "Field of the image in a captions file (a.b: in a): a number or a COCO file name.")
]
CaptionKey = Annotated[str, value("FIELD", "Field of the caption in a captions file.")]

MaxNewTokens = Annotated[int, value("N", "Longest caption in tokens.", panel=MODEL)]
ParallelTrials = Annotated[int, value("N", "Trials in a round, captioned together.", panel=TRIALS)]
Sampler = Annotated[
    SamplerName, value("NAME", "How the next settings are chosen: tpe, nsga2, gp, random or grid.", panel=TRIALS)
]
Subset = Annotated[
    str | None,
    value(
        "NAME|FILE", "Tune images: a shipped subset or a file, else drawn.", panel=IMAGES, complete=completion.subsets
    ),
]
_SO_MANY = f"[default: {search_defaults.IMAGES}; demo: {search_defaults.DEMO_IMAGES}]"
Images = Annotated[int | None, value("N", f"Tune images to draw.  {_SO_MANY}", panel=IMAGES, min=1)]
HoldoutImages = Annotated[int | None, value("N", f"Held-out images to keep back.  {_SO_MANY}", panel=IMAGES, min=1)]
Prompt = Annotated[str | None, value("TEXT", "Question; the family's when left out.", panel=MODEL)]

Seed = Annotated[int, value("N", "Seed of what is drawn at random.", min=0)]

Study = Annotated[
    str | None,
    typer.Argument(
        help="Name or folder of a study; the latest when left out.",
        metavar="STUDY",
        autocompletion=completion.studies,
    ),
]
Select = Annotated[
    str,
    value("RULE", "The trial: keep-f1, knee, min-chair, max-f1 or trial:N.", complete=completion.selections),
]
Storage = Annotated[
    str | None, value("URL", "Optuna storage that the study was searched with, if not study.db.", panel=FILES)
]
StudiesDir = Annotated[Path, value("DIR", "Folder of studies.", panel=FILES)]

Json = Annotated[bool, flag("Print one JSON document on stdout and nothing else.", "--json")]
