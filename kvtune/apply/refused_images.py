"""Images that can be read and that the model cannot take: found, and left out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvtune.apply.with_preset import WithPreset
from kvtune.errors import KvtuneError, RequestError
from kvtune.study.caption_log import NamedLog
from kvtune.study.captioning import caption_images
from kvtune.study.pace import Pace
from kvtune.study.streams import NamedImage, Stream
from kvtune.study.together import alone

if TYPE_CHECKING:
    from kvtune.captioning.open import AnyCaptioner

_WORKS = 8
"""Images that are tried to see whether the model takes any."""


def caption_all(
    work: WithPreset,
    images: Sequence[NamedImage],
    log: NamedLog,
    pace: Pace,
    on_work: Callable[[], None],
    skip_broken: bool,
    note: Callable[[str], None],
) -> dict[Path, str]:
    """Caption every image that has no caption in the log, but for those that the model cannot take.

    Returns
    -------
    dict
        The images that were left out, and why.

    Raises
    ------
    KvtuneError
        If an image cannot be taken and ``skip_broken`` is not wanted, no image can be, or captioning fails for another
        reason; all captions so far are kept.
    """
    refused: dict[Path, str] = {}
    while True:
        left = [image for image in images if image[0] not in log and image[1] not in refused]
        try:
            wanted = Stream(work.captioner, left, {None: work.method}, {None: log}, pace=pace, on_work=on_work)
            alone(caption_images(wanted))
            return refused
        except KvtuneError as error:
            found = _first_refused(work.captioner, left) if isinstance(error.__cause__, RequestError) else None
            if found is None:
                raise
            place, why = found
            others = [*left[:place][:1], *left[place + 1 :][:_WORKS]]
            if not len(log) and all(_refusal(work.captioner, other) is not None for other in others):
                raise  # it is not the image
            path = left[place][1]
            if not skip_broken:
                raise KvtuneError(
                    f"captioning stopped at {path}: {why}; no caption is lost, and the same command with "
                    "--skip-broken goes on without this image"
                ) from error
            refused[path] = why
            note(f"skipped {path}: {why}")


def _first_refused(captioner: "AnyCaptioner", images: Sequence[NamedImage]) -> tuple[int, str] | None:
    """The place of the first image that the model cannot take, and why."""
    for place, image in enumerate(images):
        if (why := _refusal(captioner, image)) is not None:
            return place, why
    return None


def _refusal(captioner: "AnyCaptioner", image: NamedImage) -> str | None:
    """Why the model cannot take an image; None if it can."""
    from kvtune.captioning import CaptionRequest

    request = CaptionRequest(image[0], image[1], max_new_tokens=1)
    try:
        if hasattr(captioner, "prompts_of"):
            captioner.prompts_of([request])
        else:
            list(captioner.run([request]))
    except RequestError as error:
        return str(error)
    return None
