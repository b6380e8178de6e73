"""Subsets: explicit, ordered lists of COCO image ids with a name and a sha256."""

import hashlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StrictInt, field_validator, model_validator

from kvtune.coco.folder import CocoFolder
from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.json_files import read_json
from kvtune.presets import SubsetInfo
from kvtune.schema import Document, validated
from kvtune.text import did_you_mean, quoted

OPERA500 = "opera500"
"""The 500 val2014 images of OPERA's published captions of LLaVA-1.5 and MiniGPT-4 (Huang et al. 2024): the reporting
set, never tuned on."""


class Subset(Document):
    """An ordered list of images of one COCO split.

    Attributes
    ----------
    name
        What reports call it.
    source
        The split, such as ``val2014``.
    seed
        The seed it was drawn with; None for a list that was not drawn.
    image_ids
        The images, in the order in which they are captioned; each once.
    sha256
        Digest of the ids; see :func:`ids_sha256`.
    """

    format: Literal["kvtune-subset/1"]
    name: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    seed: StrictInt | None
    image_ids: Annotated[tuple[Annotated[StrictInt, Field(ge=0)], ...], Field(min_length=1)]
    sha256: str

    @field_validator("image_ids")
    @classmethod
    def _each_once(cls, image_ids: tuple[int, ...]) -> tuple[int, ...]:
        seen: set[int] = set()
        for image_id in image_ids:
            if image_id in seen:
                raise ValueError(f"image id {image_id} is there twice")
            seen.add(image_id)
        return image_ids

    @model_validator(mode="after")
    def _digest_matches(self) -> Self:
        if self.sha256 != ids_sha256(self.image_ids):
            raise ValueError(
                f"sha256 does not match image_ids (theirs is {ids_sha256(self.image_ids)}): the file was changed"
            )
        return self

    @classmethod
    def of(cls, name: str, source: str, image_ids: Iterable[int], seed: int | None = None) -> Self:
        """Make a subset of given ids, in the given order."""
        ids = tuple(image_ids)
        return cls(format="kvtune-subset/1", name=name, source=source, seed=seed, image_ids=ids, sha256=ids_sha256(ids))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """Load a subset that ships with kvtune, by name, or a subset file.

        Raises
        ------
        RequestError
            If there is neither, or the file is not a valid subset.
        """
        if name_or_path in named_subsets():
            with resources.as_file(resources.files("kvtune.coco") / "subsets" / f"{name_or_path}.json") as path:
                return cls._read(path)
        path = check_path(name_or_path)
        if not path.exists():
            hint = did_you_mean(str(name_or_path), named_subsets()) or ";"
            raise RequestError(
                f"there is no subset {quoted(name_or_path)}{hint} name one that ships with kvtune "
                f"({', '.join(named_subsets())}) or a file; kvtune data subset makes one"
            )
        return cls._read(path)

    @classmethod
    def _read(cls, path: Path) -> Self:
        return validated(cls, read_json(path, "subset"), f"subset file {path}")

    @property
    def info(self) -> SubsetInfo:
        """The subset without its ids."""
        return SubsetInfo(name=self.name, sha256=self.sha256, images=len(self.image_ids))

    def overlap(self, other: "Subset") -> int:
        """Count the images that two subsets share, by id: 2014 and 2017 splits have the same ids."""
        return len(set(self.image_ids) & set(other.image_ids))


def ids_sha256(image_ids: Iterable[int]) -> str:
    """SHA-256, in hexadecimal, of the ids written in decimal and joined by commas, in order: ``"42,7,139"``."""
    return hashlib.sha256(",".join(map(str, image_ids)).encode()).hexdigest()


def named_subsets() -> list[str]:
    """Names of the subsets that ship with kvtune."""
    return [OPERA500]


def draw(
    source: str, image_ids: Iterable[int], images: int, seed: int, exclude: Iterable[int] = (), name: str | None = None
) -> Subset:
    """Draw images at random.

    The first ones are taken of :func:`shuffled`, so that a smaller draw with the same seed is the beginning of a larger
    one.

    Parameters
    ----------
    images
        How many to draw, at least 1.
    seed
        Any integer.
    name
        Name of the subset; by default made of source, number and seed.

    Raises
    ------
    RequestError
        If fewer images are there than asked for.
    """
    excluded = set(exclude)
    pool = {image_id for image_id in image_ids if image_id not in excluded}
    if images < 1:
        raise RequestError(f"a subset needs at least 1 image, not {images}")
    if images > len(pool):
        raise RequestError(
            f"{images} images were asked for, but {source} has only {len(pool)} that are not set aside; ask for fewer"
        )
    return Subset.of(name or f"{source}-{images}-seed{seed}", source, shuffled(pool, seed)[:images], seed)


def shuffled(image_ids: Iterable[int], seed: int) -> list[int]:
    """Images in random order: by the SHA-256 of ``"SEED:ID"``.

    So it is the same on every machine and in every Python version, and does not depend on the order that they had.
    """
    return sorted(image_ids, key=lambda image_id: hashlib.sha256(f"{seed}:{image_id}".encode()).digest())


def tune_and_holdout(
    folder: CocoFolder, images: int, holdout_images: int, seed: int = 0, source: str | None = None
) -> tuple[Subset, Subset]:
    """Draw the images to search on and those to validate on.

    The two are disjoint, and disjoint from :data:`OPERA500`, by image id.

    Parameters
    ----------
    images, holdout_images
        How many of each.
    seed
        Any integer.
    source
        The split to draw from; by default val2014, else the first split that is there.

    Returns
    -------
    (Subset, Subset)
        Tune and held-out images.

    Raises
    ------
    RequestError
        If there are fewer images; the message says how many there are.
    """
    source = source or folder.sources[0]
    available = available_images(folder, source)
    if images + holdout_images > len(available):
        raise RequestError(
            f"{images} tune and {holdout_images} held-out images were asked for, but {source} in {folder.root} has "
            f"only {len(available)} outside {OPERA500}; ask for fewer with --images and --holdout-images"
        )
    tune = draw(source, available, images, seed, name=f"{source}-tune{images}-seed{seed}")
    return tune, holdout_beside(folder, tune, holdout_images, seed)


def holdout_beside(folder: CocoFolder, tune: Subset, images: int, seed: int) -> Subset:
    """Draw images to validate on, of the split of given tune images, disjoint from them and from :data:`OPERA500`.

    Raises
    ------
    RequestError
        If there are fewer images; the message says how many there are.
    """
    available = available_images(folder, tune.source).difference(tune.image_ids)
    if images > len(available):
        raise RequestError(
            f"{images} held-out images were asked for, but {tune.source} in {folder.root} has only {len(available)} "
            f"outside {tune.name} and {OPERA500}; ask for fewer with --holdout-images"
        )
    return draw(tune.source, available, images, seed, name=f"{tune.source}-holdout{images}-seed{seed}")


def available_images(folder: CocoFolder, source: str) -> set[int]:
    """Ids of the images of a split that may be drawn: all but those of :data:`OPERA500`."""
    return set(folder.image_ids(source)).difference(Subset.load(OPERA500).image_ids)
