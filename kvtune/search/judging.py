"""Captioning the images of a round: all its trials together, every caption kept as it comes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kvtune.errors import KvtuneError
from kvtune.search.captions import CaptionLog

if TYPE_CHECKING:
    from kvtune.captioning import CaptionRequest
    from kvtune.methods import Method

Image = tuple[int, Path]
"""Image id and file."""

Number = int | None
"""A trial's number; None is the baseline."""


class CaptionWriter(Protocol):
    """What a search needs of :class:`kvtune.captioning.Captioner`."""

    def run(self, requests: Iterable[Any]) -> Iterator[Any]:
        """Captions as they finish, in any order."""

    def withdraw(self, tag: Any) -> None:
        """Give no captions for requests of ``tag`` any more."""


def caption_images(
    captioner: CaptionWriter,
    images: Sequence[Image],
    methods: "Mapping[Number, Method | None]",
    logs: Mapping[Number, CaptionLog],
    on_caption: Callable[[Number], None],
    stopped: Set[Number] = frozenset(),
    is_over: Callable[[], bool] = lambda: False,
) -> dict[Number, str]:
    """Caption every image with every method, except what the logs hold already.

    The trials go through one stream of requests. If that fails, each goes again alone, so that one trial's failure
    takes no other with it.

    Parameters
    ----------
    images
        The images, in the order in which they are asked for.
    methods
        Trial number to its method; None is the baseline, whose method is None.
    logs
        Trial number to the log that its captions are appended to.
    on_caption
        Called with the trial's number after each caption.
    stopped
        Trials that want no more captions; may grow while ``on_caption`` is called.
    is_over
        Whether to end now, asked after each caption; captions in flight are then lost.

    Returns
    -------
    dict
        Number and reason of each trial whose own captions fail while the model works without a method.

    Raises
    ------
    KvtuneError
        If captioning fails for a reason that is no trial's own: an image, the disk, the device.
    """

    def run(some: "Mapping[Number, Method | None]") -> None:
        withdrawn: set[Number] = set()
        for caption in captioner.run(_requests(images, some, logs, stopped)):
            if caption.tag not in stopped:
                logs[caption.tag].append(caption.image_id, caption.text, len(caption.token_ids), caption.finish_reason)
                on_caption(caption.tag)
            for number in stopped - withdrawn:
                captioner.withdraw(number)
                withdrawn.add(number)
            if is_over():
                return

    try:
        run(methods)
        return {}
    except KvtuneError as error:
        raise _stopped(error) from error
    except Exception as error:
        together = error
    failures: dict[Number, Exception] = {}
    for number, method in methods.items():
        try:
            if number not in stopped and not is_over():
                run({number: method})
        except KvtuneError as error:
            raise _stopped(error) from error
        except Exception as error:
            failures[number] = error
    if None in failures or (failures and not _works_without_method(captioner, images[0])):
        raise _stopped(failures.get(None, together)) from together
    return {number: _reason(error) for number, error in failures.items()}


def _requests(
    images: Sequence[Image],
    methods: "Mapping[Number, Method | None]",
    logs: Mapping[Number, CaptionLog],
    stopped: Set[Number],
) -> "Iterator[CaptionRequest]":
    """Requests for what is missing; those that share an image are neighbours, because they share its prefill."""
    from kvtune.captioning import CaptionRequest

    for image_id, path in images:
        for number, method in methods.items():
            if number not in stopped and image_id not in logs[number]:
                yield CaptionRequest(image_id, path, method, number)


def _works_without_method(captioner: CaptionWriter, image: Image) -> bool:
    from kvtune.captioning import CaptionRequest

    try:
        return len(list(captioner.run([CaptionRequest(image[0], image[1], None, None)]))) == 1
    except Exception:
        return False


def _stopped(error: Exception) -> KvtuneError:
    return KvtuneError(f"captioning stopped: {_reason(error)}; no caption is lost, the same command goes on from here")


def _reason(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if isinstance(error, KvtuneError) else f"{type(error).__name__}: {text}"
