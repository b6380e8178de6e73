"""Which images a reproduction reports on, and on which other ones it chooses the constant factor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kvtune.coco import OPERA500, CocoFolder, Subset, available_images, check_images, draw, find_coco
from kvtune.coco.truth import coco_truth
from kvtune.errors import RequestError
from kvtune.study.subsets import Image

SEED = 0
"""Of the draw of tune images."""


@dataclass(frozen=True)
class Images:
    """The images of a reproduction.

    Attributes
    ----------
    reporting
        The set to report on, whole.
    tune
        As many other images, drawn from the same split.
    count
        How many of each are used: the first ones.
    """

    folder: CocoFolder
    reporting: Subset
    tune: Subset
    count: int
    download_options: str

    def check(self, on_progress: Callable[[int, int], None]) -> None:
        """Open every image once, so that a broken one is found before the first caption.

        Raises
        ------
        RequestError
            If one is missing or cannot be read.
        """
        check_images([path for _, path in self.of(self.image_ids)], on_progress)

    def of(self, image_ids: Sequence[int]) -> list[Image]:
        """Ids and files of images."""
        return list(zip(image_ids, self.folder.image_paths(image_ids, self.download_options), strict=True))

    @property
    def image_ids(self) -> list[int]:
        """All that are used, those to report on first."""
        return [*self.reporting.image_ids[: self.count], *self.tune.image_ids]

    @cached_property
    def ground_truth(self) -> dict[int, set[str]]:
        """Objects in all these images."""
        return coco_truth(self.folder, self.image_ids)


def reporting_subset(demo: bool) -> Subset:
    """OPERA's 500 images; of the demo, whose scenes are its own, the first hundred."""
    if not demo:
        return Subset.load(OPERA500)
    from kvtune.demo.coco import FIRST_ID

    return Subset.of("demo100", "val2014", range(FIRST_ID, FIRST_ID + 100))


def image_count(images: int | None, reporting: Subset) -> int:
    """How many images are used: those asked for, else all.

    Raises
    ------
    RequestError
        If there are not so many.
    """
    if images is not None and not 1 <= images <= len(reporting.image_ids):
        raise RequestError(
            f"--images must be from 1 to {len(reporting.image_ids)}, the images of {reporting.name}, not {images}"
        )
    return len(reporting.image_ids) if images is None else images


def find_images(coco: Path | None, reporting: Subset, count: int) -> Images:
    """Find the images of a reproduction.

    Parameters
    ----------
    coco
        The COCO folder; None for the default one.
    count
        How many images to report on, and to draw as tune images: disjoint from ``reporting`` and from OPERA's 500.

    Raises
    ------
    RequestError
        If the folder or images are missing; the message has the command that fetches them all.
    """
    options = f"--subset {OPERA500} --holdout-images {count} --seed {SEED}"
    folder = CocoFolder(find_coco(coco, options), options)
    source = reporting.source if reporting.source in folder.sources else folder.sources[0]
    free = available_images(folder, source).difference(reporting.image_ids)
    if count > len(free):
        raise RequestError(
            f"{count} tune images are needed beside {reporting.name}, but {source} in {folder.root} has only "
            f"{len(free)}; ask for fewer with --images"
        )
    found = Images(folder, reporting, draw(source, free, count, SEED), count, options)
    found.of(found.image_ids)
    return found
