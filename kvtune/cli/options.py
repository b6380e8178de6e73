"""Options that several commands have, each declared once, and what they make together."""

from pathlib import Path
from typing import Annotated

import typer

MODEL, IMAGES, FILES = "Model", "Images", "Files"
"""Headings of the help."""

_COCO = "COCO folder; else $KVTUNE_COCO, else ~/.cache/kvtune/coco."

Model = Annotated[
    str, typer.Option("--model", "-m", help="Model: a short name, a folder or a Hub id.", rich_help_panel=MODEL)
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of weights on the Hub.", rich_help_panel=MODEL)
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=MODEL)]
LoadIn4Bit = Annotated[
    bool, typer.Option("--load-in-4bit", help="Quantize the language model's weights.", rich_help_panel=MODEL)
]
LoadIn8Bit = Annotated[bool, typer.Option("--load-in-8bit", help="The same, in 8 bits.", rich_help_panel=MODEL)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=MODEL)]
Lanes = Annotated[str, typer.Option(help="Captions decoded at once: auto or a number.", rich_help_panel=MODEL)]
CudaGraphs = Annotated[
    bool,
    typer.Option(
        "--cuda-graphs/--no-cuda-graphs", help="Replay decode steps from CUDA graphs, on a GPU.", rich_help_panel=MODEL
    ),
]

Coco = Annotated[Path | None, typer.Option("--coco", help=_COCO, rich_help_panel=IMAGES)]
StudyCoco = Annotated[
    Path | None, typer.Option("--coco", help="COCO folder; the study's when left out.", rich_help_panel=IMAGES)
]
InstancesOnly = Annotated[
    bool, typer.Option("--instances-only", help="Ground truth of COCO's instances alone, without reference captions.")
]
ImageKey = Annotated[
    str, typer.Option(help="Field of the image in a captions file (a.b: in a): a number or a COCO file name.")
]
CaptionKey = Annotated[str, typer.Option(help="Field of the caption in a captions file.")]

Study = Annotated[str | None, typer.Argument(help="Name or folder of a study; the latest when left out.")]
StudiesDir = Annotated[Path, typer.Option(help="Folder of studies.", rich_help_panel=FILES)]
STUDIES = Path("studies")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
