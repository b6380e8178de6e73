"""A folder with COCO in it: which splits are there, what is known of each image, where its file is."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from kvtune.coco.annotations import Annotations, read_annotations
from kvtune.coco.layout import (
    KINDS,
    SOURCES,
    Kind,
    annotation_name,
    check_source,
    download_command,
    find_annotations,
    find_any_image,
    find_image,
    sources_in,
)
from kvtune.errors import RequestError
from kvtune.files import cache_folder, check_path
from kvtune.text import quoted


def default_coco() -> Path:
    """Where COCO is kept when no folder is named: ``$KVTUNE_COCO``, else ``~/.cache/kvtune/coco``."""
    return cache_folder("KVTUNE_COCO", "coco")


def find_coco(path: str | Path | None = None, download_options: str = "") -> Path:
    """Find the COCO folder.

    Parameters
    ----------
    path
        The value of ``--coco``; None for :func:`default_coco`.
    download_options
        Which images the message's command is to fetch; see :func:`~kvtune.coco.layout.download_command`.

    Raises
    ------
    RequestError
        If the folder does not exist; the message has the download command.
    """
    root = check_path(path) if path is not None else default_coco()
    if root.is_dir():
        return root
    if root.exists():
        raise RequestError(f"COCO folder {root} is not a folder; name one with --coco or $KVTUNE_COCO")
    raise RequestError(
        f"COCO folder {root} does not exist; name yours with --coco or $KVTUNE_COCO, or fetch it: "
        f"{download_command(root, download_options)}"
    )


class CocoFolder:
    """COCO's annotations and images in one folder, 2014 and 2017, train and val.

    Annotation files lie in ``annotations/`` or in the folder itself; images in ``val2014/`` and so on (also below
    ``images/``) or in the folder itself. Files are read when they are first needed, each once: a question about a few
    val2014 images never parses the training annotations. An id that several splits have is answered from the first
    of :data:`~kvtune.coco.layout.SOURCES`; 2014 and 2017 annotate the same images alike.

    Parameters
    ----------
    download_options
        Which images the command is to fetch that a message about a folder without COCO names; see
        :func:`~kvtune.coco.layout.download_command`.

    Attributes
    ----------
    sources
        Splits that have annotations here (``"val2014"``, ...), in the order in which ids are looked up.

    Raises
    ------
    RequestError
        If the folder does not exist or holds no annotations.
    """

    def __init__(self, root: str | Path, download_options: str = "") -> None:
        self.root = find_coco(root, download_options)
        self._paths = {
            (kind, source): path
            for source in SOURCES
            for kind in KINDS
            if (path := find_annotations(self.root, kind, source)) is not None
        }
        self._read: dict[tuple[Kind, str], Annotations] = {}
        self.sources = sources_in(self.root)
        if not self.sources:
            raise RequestError(
                f"no COCO annotations (instances_val2014.json, captions_val2014.json or their 2017 and train "
                f"counterparts) in {self.root} or its folder annotations/; fetch them: "
                f"{download_command(self.root, download_options)}"
            )

    def image_ids(self, source: str) -> list[int]:
        """Ids of the images of a split, ascending.

        Raises
        ------
        RequestError
            If the split is not here or its annotations cannot be read.
        """
        self._check_source(source)
        return sorted(self._file_names(source))

    def check_ids(self, source: str, image_ids: Iterable[int]) -> None:
        """Refuse ids that are not of a split.

        Raises
        ------
        RequestError
            If the split is not here, or an id is not in it.
        """
        self._check_source(source)
        for image_id in image_ids:
            if image_id not in self._file_names(source):
                raise RequestError(f"image {image_id} is not in {source}; check the ids and the source of the subset")

    def categories(self, image_ids: Iterable[int]) -> dict[int, set[str]]:
        """Names of the COCO categories of each image's instances; an empty set for an image that has none.

        Raises
        ------
        RequestError
            If an id is in no instances file here, or a file cannot be read.
        """
        return {image_id: set(names) for image_id, names in self._labels("instances", image_ids).items()}

    def captions(self, image_ids: Iterable[int]) -> dict[int, list[str]]:
        """The reference captions of each image.

        Raises
        ------
        RequestError
            If an id is in no captions file here, or a file cannot be read.
        """
        return {image_id: list(texts) for image_id, texts in self._labels("captions", image_ids).items()}

    def knows(self, image_id: int) -> bool:
        """Whether an annotation file here lists the image."""
        return self._source_of(image_id) is not None

    def has_labels(self, kind: Kind) -> bool:
        """Whether any image has annotations of this kind."""
        return any(self._annotations(kind, source).labels for source in self.sources if (kind, source) in self._paths)

    def file_names(self, kind: Kind) -> str:
        """Names of the annotation files of this kind, for messages."""
        return ", ".join(annotation_name(kind, source) for source in self.sources if (kind, source) in self._paths)

    def image_paths(self, image_ids: Iterable[int], download_options: str = "") -> list[Path]:
        """Paths of the files of several images, in order.

        Parameters
        ----------
        download_options
            What the message about missing files adds to the download command so that it fetches them; see
            :func:`~kvtune.coco.layout.download_command`.

        Raises
        ------
        RequestError
            If an id is unknown or files are missing; the message says how many and names the first.
        """
        paths, missing = [], []
        for image_id in image_ids:
            path = self._find_image(image_id)
            if path is None:
                missing.append(image_id)
            else:
                paths.append(path)
        if missing:
            first = missing[0]
            source = self._source_of(first)
            if source is None:
                raise self._unknown(first, self.sources)
            raise RequestError(
                f"{len(missing)} of {len(missing) + len(paths)} images are missing from {self.root} "
                f"(first: {first}, {self._file_names(source)[first]} of {source}); "
                f"fetch them: {download_command(self.root, download_options)}"
            )
        return paths

    def _check_source(self, source: str) -> None:
        if check_source(source) not in self.sources:
            raise RequestError(
                f"{self.root} has no annotations of {quoted(source)}, only of {', '.join(self.sources)}; "
                f"name one of these, or fetch it: {download_command(self.root, f'--source {source}')}"
            )

    def _find_image(self, image_id: int) -> Path | None:
        # COCO's own file names first: they need no annotations.
        if (path := find_any_image(self.root, image_id)) is not None:
            return path
        for source in self.sources:
            name = self._file_names(source).get(image_id)
            if name is not None and (path := find_image(self.root, source, name)) is not None:
                return path
        return None

    def _labels(self, kind: Kind, image_ids: Iterable[int]) -> dict[int, Sequence[str]]:
        wanted = list(image_ids)
        sources = [source for source in self.sources if (kind, source) in self._paths]
        found: dict[int, Sequence[str]] = {}
        for source in sources:
            here = [image_id for image_id in wanted if image_id not in found and image_id in self._file_names(source)]
            if here:
                annotations = self._annotations(kind, source)
                found.update((i, annotations.labels.get(i, ())) for i in here if i in annotations.file_names)
        for image_id in wanted:
            if image_id in found:
                continue
            home = self._source_of(image_id)
            if home is None or (kind, home) in self._paths:
                raise self._unknown(image_id, [annotation_name(kind, source) for source in sources])
            raise RequestError(
                f"{self.root} has no {annotation_name(kind, home)}, which image {image_id} needs; fetch it: "
                f"{download_command(self.root, f'--source {home}')}"
            )
        return {image_id: found[image_id] for image_id in wanted}

    def _source_of(self, image_id: int) -> str | None:
        """The first split here that lists an image; None where none does."""
        return next((source for source in self.sources if image_id in self._file_names(source)), None)

    def _unknown(self, image_id: int, places: list[str]) -> RequestError:
        searched = ", ".join(places) or "there is no such file"
        return RequestError(
            f"image {image_id} is not in the annotations of {self.root} (searched: {searched}); "
            f"check the id, or fetch its split: {download_command(self.root, '--subset FILE')}"
        )

    def _file_names(self, source: str) -> dict[int, str]:
        """Image id to file name, from a file that is read already, else from the smaller one."""
        known = self._read.get(("instances", source)) or self._read.get(("captions", source))
        if known is None:
            known = self._annotations("captions" if ("captions", source) in self._paths else "instances", source)
        return known.file_names

    def _annotations(self, kind: Kind, source: str) -> Annotations:
        if (kind, source) not in self._read:
            self._read[kind, source] = read_annotations(self._paths[kind, source], kind, self.root)
        return self._read[kind, source]
