"""``kvtune data``: COCO's images, subsets of them and what is in them."""

from pathlib import Path
from typing import Annotated

from kvtune.cli import completion
from kvtune.cli import options as opt
from kvtune.cli.commands import Command, group
from kvtune.cli.common import err, out, print_json
from kvtune.cli.options import value
from kvtune.cli.progress import progress
from kvtune.files import check_writable
from kvtune.study.search_defaults import IMAGES

app = group(help="COCO: draw subsets, build ground truth, download.")


@app.command(cls=Command)
def subset(
    images: Annotated[int, value("N", "How many images to draw.", min=1)],
    to: Annotated[Path, value("FILE", "Where the subset file goes.", "--out")],
    coco: opt.Coco = None,
    seed: opt.Seed = 0,
    source: Annotated[
        str | None, value("SPLIT", "COCO split; by default val2014, else the first that is there.")
    ] = None,
    name: Annotated[str | None, value("NAME", "Its name; made of split, number and seed.")] = None,
    json: opt.Json = False,
) -> None:
    """Draw a subset of COCO images, none of them in opera500, which stays the set to report on.

    Example: kvtune data subset --coco ~/coco --images 500 --seed 1 --out tune.json
    """
    from kvtune.coco import OPERA500, CocoFolder, Subset, draw, find_coco

    check_writable(to)
    folder = CocoFolder(find_coco(coco))
    source = source if source is not None else folder.sources[0]
    drawn = draw(source, folder.image_ids(source), images, seed, Subset.load(OPERA500).image_ids, name)
    drawn.save(to)
    if json:
        print_json({"out": str(to), **drawn.model_dump(mode="json", exclude={"image_ids"}), "images": images})
    else:
        out().print_line(f"{to}: {images} images of {source}, seed {seed}, sha256 {drawn.sha256[:12]}...")


@app.command("ground-truth", cls=Command)
def ground_truth(
    to: Annotated[Path, value("FILE", "Where the ground truth file goes.", "--out")],
    coco: opt.Coco = None,
    subset: Annotated[
        str | None,
        value("NAME|FILE", "Only these images: a shipped subset or a file; else all.", complete=completion.subsets),
    ] = None,
    instances_only: opt.InstancesOnly = False,
    json: opt.Json = False,
) -> None:
    """Write the objects of each image: categories of its instances and of its reference captions.

    Example: kvtune data ground-truth --coco ~/coco --subset opera500 --out truth.json
    """
    from kvtune.chair.ground_truth import save_ground_truth
    from kvtune.coco import CocoFolder, Subset, find_coco
    from kvtune.coco.truth import coco_truth

    check_writable(to)
    folder = CocoFolder(find_coco(coco))
    with err().status("reading annotations"):
        if subset is not None:
            image_ids = list(Subset.load(subset).image_ids)
        else:
            image_ids = sorted({image_id for source in folder.sources for image_id in folder.image_ids(source)})
        truth = coco_truth(folder, image_ids, instances_only)
    save_ground_truth(truth, to)
    objects = sum(map(len, truth.values()))
    if json:
        print_json({"out": str(to), "images": len(truth), "objects": objects})
    else:
        out().print_line(f"{to}: {objects} objects in {len(truth)} images")


@app.command(cls=Command)
def download(
    to: Annotated[Path | None, value("DIR", "COCO folder; else $KVTUNE_COCO, else ~/.cache/kvtune/coco.")] = None,
    subset: Annotated[
        list[str] | None,
        value("NAME|FILE", "Images of a shipped subset or a subset file; repeatable.", complete=completion.subsets),
    ] = None,
    images: Annotated[int, value("N", "Without --subset: tune images to draw.", min=1)] = IMAGES,
    holdout_images: Annotated[
        int | None,
        value("N", f"Held-out images to draw; when left out {IMAGES}, or none with --subset.", min=1),
    ] = None,
    seed: opt.Seed = 0,
    source: Annotated[
        str | None, value("SPLIT", "Without --subset: split to draw from; the one that is there, else val2014.")
    ] = None,
    base_url: Annotated[str | None, value("URL", "A mirror of http://images.cocodataset.org.")] = None,
    json: opt.Json = False,
) -> None:
    """Download COCO's annotations and only the images that are needed: about 80 MB for 500 images, not 6 GB.

    These are the images that kvtune search takes with the same --subset, --images, --holdout-images and --seed.
    Run it again after an interruption: it goes on where it was.

    Example: kvtune data download --subset opera500 --to ~/coco
    """
    from kvtune.coco import CocoFolder, Subset, default_coco, holdout_beside, tune_and_holdout
    from kvtune.coco.download import BASE_URL, download_annotations, download_images
    from kvtune.coco.layout import sources_in

    root = to if to is not None else default_coco()
    subsets = [Subset.load(each) for each in subset or []]
    source = source if source is not None else next(iter(sources_in(root)), "val2014")
    url = base_url or BASE_URL
    written, downloaded, present = [], 0, 0
    try:
        for split in dict.fromkeys([each.source for each in subsets] or [source]):
            with progress(f"annotations of {split}", in_bytes=True) as show:
                written += download_annotations(root, split, url, on_progress=show)
        folder = CocoFolder(root)
        if not subsets:
            subsets = [*tune_and_holdout(folder, images, holdout_images or IMAGES, seed, source)]
        elif holdout_images is not None:
            subsets += [holdout_beside(folder, each, holdout_images, seed) for each in subsets]
        for each in subsets:
            folder.check_ids(each.source, each.image_ids)
            with progress(f"images of {each.name}") as show:
                fetched = download_images(root, each.source, each.image_ids, url, on_progress=show)
            downloaded += fetched.downloaded
            present += fetched.present
    except KeyboardInterrupt:
        err().print("stopped; the same command goes on from here")
        raise
    if json:
        print_json(
            {
                "coco": str(root),
                "annotations": [str(path) for path in written],
                "downloaded": downloaded,
                "present": present,
            }
        )
    else:
        out().print_line(f"{root}: {downloaded} images downloaded, {present} were there")
