"""``kvtune pareto``: what a study found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json
from kvtune.cli.options import flag, value
from kvtune.cli.progress import progress
from kvtune.cli.side_files import write_beside


def pareto(
    study: opt.Study = None,
    every: Annotated[bool, flag("List all trials, not the front alone.", "--all")] = False,
    select: opt.Select = "keep-f1",
    overlay: Annotated[
        list[str] | None,
        value("WHAT", "Results beside the study's: 'paper', or a captions file of its images. Repeatable."),
    ] = None,
    image_key: opt.ImageKey = "image_id",
    caption_key: opt.CaptionKey = "caption",
    html: Annotated[bool, flag("Also write the study as one HTML page.", "--html")] = False,
    images: Annotated[bool, flag("Put small images into the page.", "--images")] = False,
    coco: Annotated[Path | None, value("DIR", "COCO folder for --images; the study's when left out.")] = None,
    outcomes: Annotated[bool, flag("Also write a table of every caption of every trial.", "--outcomes")] = False,
    parquet: Annotated[bool, flag("Write tables as Parquet too.", "--parquet")] = False,
    out_dir: Annotated[
        Path | None,
        value("DIR", "Folder for the files; the study's report folder when left out.", "--out"),
    ] = None,
    studies_dir: opt.StudiesDir = opt.STUDIES,
    json: opt.Json = False,
) -> None:
    """Show the front of a study: table and picture here; PNG, SVG, CSV and an HTML page as files.

    With --json, only files that another option asks for are written. Files that no option asks for and that cannot be
    written are a warning.

    Example: kvtune pareto demo-kvsmooth --html --images
    """
    from kvtune.analysis.selection import choose
    from kvtune.analysis.summarize import summarize
    from kvtune.errors import RequestError
    from kvtune.files import check_writable
    from kvtune.report.data.document import study_document
    from kvtune.report.data.overlay import overlay_points
    from kvtune.report.terminal.study import front_view
    from kvtune.study.study_folder import find_study

    if images and not html:
        raise RequestError("--images puts images into the page; write --html --images")
    if coco is not None and not images:
        raise RequestError("--coco says where --images are; write --html --images, or leave it out")
    if parquet:
        from kvtune.report.study_files import check_parquet

        check_parquet()
    folder = find_study(study, studies_dir)
    report = out_dir or folder.report
    asked = out_dir is not None or html or outcomes or parquet
    if asked:
        check_writable(report / "front.png")
    summary = summarize(folder)
    chosen = choose(summary, select)
    overlays = [
        point for name in overlay or [] for point in overlay_points(name, folder, summary.model, image_key, caption_key)
    ]
    if json:
        print_json(study_document(summary, chosen, overlays))
    else:
        out().print(front_view(summary, chosen, out(), overlays, every=every))
    everything = not json or out_dir is not None
    if not (everything or asked):
        return

    from kvtune.report import study_files
    from kvtune.report.data.outcomes import outcomes_frame

    def files() -> Iterator[Path]:
        if everything:
            yield from study_files.write_pictures(report, summary, chosen.trial, overlays)
        if everything or parquet:
            yield from study_files.write_trials(report, summary, chosen.trial, parquet=parquet)
        if outcomes:
            yield from study_files.write_frame(report / "outcomes", outcomes_frame(folder, summary), parquet=parquet)
        if html:
            with progress("images put into the page") as on_progress:
                yield from study_files.write_page(
                    report, folder, summary, chosen, overlays, with_images=images, coco=coco, on_progress=on_progress
                )

    write_beside(files(), asked, "--out DIR")
