"""Which images a study uses: those it tunes on, those it keeps back, and what is in them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kvtune.coco import (
    OPERA500,
    CocoFolder,
    Subset,
    available_images,
    check_images,
    find_coco,
    holdout_beside,
    tune_and_holdout,
)
from kvtune.coco.truth import coco_truth

Image = tuple[int, Path]
"""Image id and file."""


DEMO = "demo"


def coco_of(
    model: str, coco: Path | None, on_scene: Callable[[int, int], None] = lambda done, total: None
) -> Path | None:
    """The COCO folder that was named; of the demo, where none was, its own scenes; else None.

    ``on_scene`` is called with (scenes rendered, all scenes) where they are not there yet.
    """
    if coco is not None or model != DEMO:
        return coco
    from kvtune.demo import demo_coco

    return demo_coco(on_scene=on_scene)


@dataclass(frozen=True)
class Data:
    """The images of a study.

    Attributes
    ----------
    folder
        Where they are.
    tune, holdout
        Disjoint subsets, to search on and to validate on.
    download_options
        What ``kvtune data download`` takes to fetch them.
    note
        What the user should know about the draw; empty where nothing.
    """

    folder: CocoFolder
    tune: Subset
    holdout: Subset
    download_options: str
    note: str = ""

    def check(self, on_progress: Callable[[int, int], None], note: Callable[[str], None]) -> list[Image]:
        """Open every image once, so that a broken one is found before the first trial, not after an hour.

        Returns
        -------
        list
            Ids and files of the tune images, in the subset's order.

        Raises
        ------
        RequestError
            If one is missing or cannot be read.
        """
        shared = self.tune.overlap(Subset.load(OPERA500))
        if shared:
            note(f"warning: {shared} of the tune images are in {OPERA500}, which is the set to report on")
        tune = self.folder.image_paths(self.tune.image_ids, self.download_options)
        holdout = self.folder.image_paths(self.holdout.image_ids, self.download_options)
        check_images([*tune, *holdout], on_progress)
        return list(zip(self.tune.image_ids, tune, strict=True))

    def ground_truth(self) -> dict[int, set[str]]:
        """Objects in all these images: categories of their instances and of their reference captions."""
        return coco_truth(self.folder, [*self.tune.image_ids, *self.holdout.image_ids])


def find_data(
    coco: Path | None, subset: str | None, images: int | None, holdout_images: int | None, seed: int, default: int
) -> Data:
    """Find the COCO folder and draw the subsets.

    Parameters
    ----------
    coco
        The COCO folder; None for the default one.
    subset
        Name or file of the tune subset; None draws ``images`` images.
    holdout_images
        Held-out images, of the same split, disjoint from the tune images and from OPERA's 500.
    seed
        Seed of the draws.
    default
        Tune and held-out images where their numbers are not given. If the folder has fewer than twice as many, half of
        what it has, and :attr:`Data.note` says so.

    Raises
    ------
    RequestError
        If the folder, the subset or enough images are not there; the message has the command that fetches them.
    """
    folder = CocoFolder(find_coco(coco))
    note = ""
    if subset is None and images is None and holdout_images is None:
        there = len(available_images(folder, folder.sources[0]))
        if there < 2 * default:
            default = there // 2
            note = (
                f"{folder.root} has {there} images of {folder.sources[0]}: {default} to tune on, {default} held out; "
                "with so few, intervals are wide"
            )
    images = default if images is None else images
    holdout_images = default if holdout_images is None else holdout_images
    drawn = f"--holdout-images {holdout_images} --seed {seed}"
    if subset is None:
        tune, holdout = tune_and_holdout(folder, images, holdout_images, seed)
        return Data(folder, tune, holdout, f"--images {images} {drawn}", note)
    tune = Subset.load(subset)
    return Data(folder, tune, holdout_beside(folder, tune, holdout_images, seed), f"--subset {subset} {drawn}")
