"""The recorded table: what every caption of every setting came to, image by image, in one small file."""

import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kvtune.array_files import read_arrays
from kvtune.bench.search.settings import SETS, Setting, methods_of
from kvtune.chair import COLUMNS
from kvtune.errors import RequestError
from kvtune.files import write_bytes
from kvtune.schema import Document, validated

KEPT = ("mentions", "hallucinated_mentions", "mentioned", "correct", "words", "at_limit")
"""What is kept of each caption: columns of :data:`kvtune.chair.COLUMNS`, and whether it hit the token limit."""


class Recorded(Document):
    """How a table was made.

    Attributes
    ----------
    kvtune, scorer
        Versions.
    model
        What was captioned with.
    weights
        sha256 of its ``model.safetensors``.
    device
        Where it ran: ``cpu`` or ``cuda``.
    scenes_seed
        Seed of the demo's scenes; with it an image id gives the scene.
    settings
        The searched parameters of each setting.
    fixed
        The parameters that all settings share.
    """

    format: Literal["kvtune-outcomes/1"] = "kvtune-outcomes/1"
    kvtune: str
    scorer: str
    model: Literal["demo"] = "demo"
    weights: str
    device: str
    dtype: str
    prompt: str
    max_new_tokens: int
    scenes_seed: int
    settings: list[Setting]
    fixed: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Outcomes of settings on images.

    Attributes
    ----------
    recorded
        How they were made.
    truth
        Image id to the names of the categories in that image.
    outcomes
        Shape ``[images, methods, len(KEPT)]``, uint8; the images in the order of ``truth``, the methods as
        :func:`~kvtune.bench.search.settings.methods_of` lists them, so that the first is the baseline.

    Raises
    ------
    ValueError
        If there is no image, a shape is wrong, or counts contradict each other.
    """

    recorded: Recorded
    truth: dict[int, list[str]]
    outcomes: NDArray[np.uint8]

    def __post_init__(self) -> None:
        shape = (len(self.truth), len(self._methods[0]), len(KEPT))
        if self.outcomes.shape != shape or self.outcomes.dtype != np.uint8 or not self.truth:
            raise ValueError(f"outcomes are {self.outcomes.dtype} {self.outcomes.shape}, not uint8 {shape}")
        mentions, hallucinated, mentioned, correct, _, at_limit = np.moveaxis(self.outcomes, -1, 0)
        possible = (
            (hallucinated <= mentions)
            & (mentioned <= mentions)
            & (correct <= np.minimum(mentioned, self.present[:, None]))
            & ((hallucinated > 0) == (correct < mentioned))
            & (at_limit <= 1)
        )
        if not np.all(possible):
            raise ValueError("counts contradict each other")

    @cached_property
    def _methods(self) -> tuple[list[Setting | None], list[int]]:
        return methods_of(self.recorded.settings)

    @property
    def which(self) -> NDArray[np.int64]:
        """Shape ``[settings]``: the method that each setting is."""
        return np.array(self._methods[1])

    @property
    def present(self) -> NDArray[np.int64]:
        """Shape ``[images]``: categories in each image."""
        return np.array([len(names) for names in self.truth.values()])

    def counts(self) -> NDArray[np.int64]:
        """Shape ``[methods, images, len(COLUMNS)]``; see :data:`kvtune.chair.COLUMNS`."""
        kept = dict(zip(KEPT, np.transpose(self.outcomes, (2, 1, 0)).astype(np.int64), strict=True))
        present = np.broadcast_to(self.present, kept["mentions"].shape)
        derived = {
            "captions": np.ones_like(present),
            "hallucinated_captions": (kept["hallucinated_mentions"] > 0).astype(np.int64),
            "present": present,
        }
        return np.stack([(kept | derived)[name] for name in COLUMNS], axis=-1)

    def save(self, path: Path) -> None:
        """Write the table as a compressed ``.npz`` file."""
        document = self.recorded.model_dump(mode="json") | {
            "truth": {str(image_id): names for image_id, names in self.truth.items()}
        }
        metadata = np.frombuffer(json.dumps(document, separators=(",", ":")).encode(), dtype=np.uint8)
        # One column after the other, each method's images side by side: alike next to alike compresses best.
        columns = np.ascontiguousarray(np.transpose(self.outcomes, (2, 1, 0)))
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, metadata=metadata, outcomes=columns)
        write_bytes(path, data.getvalue())


def load_table(path: Path) -> Table:
    """Read what :meth:`Table.save` writes.

    Raises
    ------
    RequestError
        If the file is missing, damaged, of another format, or contradicts itself.
    """
    try:
        arrays = read_arrays(path)
        metadata, outcomes = arrays["metadata"], arrays["outcomes"]
        document = json.loads(metadata.tobytes())
    except FileNotFoundError:
        record = "python -m kvtune.bench.search.record"
        name = f"--set {path.stem} " if path.stem in SETS else ""
        raise RequestError(f"table {path} does not exist; record it: {record} {name}--out {path}") from None
    except (OSError, ValueError, KeyError):
        raise RequestError(f"table {path} is no table of outcomes, or is damaged") from None
    if not isinstance(document, dict):
        raise RequestError(f"table {path} is no table of outcomes, or is damaged")
    truth = document.pop("truth", None)
    if not isinstance(truth, dict) or outcomes.ndim != 3:
        raise RequestError(f"table {path} has no ground truth or no outcomes")
    recorded = validated(Recorded, document, f"table {path}")
    try:
        return Table(
            recorded,
            {int(image_id): list(names) for image_id, names in truth.items()},
            np.ascontiguousarray(np.transpose(outcomes, (2, 1, 0))),
        )
    except ValueError as error:
        raise RequestError(f"table {path}: {error}") from None
