"""What the driver and its workers tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kvtune.captioning.cluster.dispatcher import Numbered
from kvtune.captioning.request import FinishReason, Work
from kvtune.models.model_facts import ModelFacts
from kvtune.models.options import Lanes

WrittenCaption = tuple[int, str, tuple[int, ...], FinishReason]
"""Number of the request, text, tokens, and why the caption ended."""


@dataclass(frozen=True)
class Settings:
    """How captions are written; see :class:`kvtune.captioning.Captioner`."""

    prompt: str | None
    max_new_tokens: int
    lanes: Lanes
    cuda_graphs: bool
    keep_images: bool = True


@dataclass(frozen=True)
class Batch:
    """Requests for a worker.

    Attributes
    ----------
    sizes
        Bytes of each image file, where the driver has it; a worker that finds another asks for the file.
    """

    settings: Settings
    requests: list[Numbered]
    sizes: dict[Path, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """Where a worker runs.

    Attributes
    ----------
    node
        The computer's name.
    device
        The card, as its maker calls it, ``4 x`` that for a model on four, or ``cpu``.
    versions
        Of the packages that captions depend on.
    """

    node: str
    device: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Ready:
    """A worker has loaded the model.

    Attributes
    ----------
    rows
        Captions that it can write at once, as far as is known.
    weights
        A digest of the model's weights.
    """

    model: ModelFacts
    rows: int
    weights: str


@dataclass
class Report:
    """What a worker did since its last report.

    Attributes
    ----------
    run
        The run that captions, absent files and the error belong to.
    work
        What it did since it is there; ``in_flight`` is of now.
    rows
        Captions that it can write at once, as it turned out; None where it has not yet.
    absent
        Image files that it does not have.
    error
        What ended its work on everything that it had.
    lost
        Why its device does nothing more for its process; None as long as it does.
    """

    run: int = 0
    captions: list[WrittenCaption] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    rows: int | None = None
    absent: list[Path] = field(default_factory=list)
    error: Exception | None = None
    lost: str | None = None

    @property
    def tells_something(self) -> bool:
        """Whether there is more in it than what is known anyway."""
        return bool(self.captions or self.absent or self.error or self.lost)
