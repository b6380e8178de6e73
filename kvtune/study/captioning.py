"""Captioning with many settings at once, every caption kept as it comes: a round's, held-out images', a sweep's."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kvtune.coco import CocoFolder
from kvtune.errors import KvtuneError, RequestError
from kvtune.models.options import DEFAULT_ENGINE, EngineOptions, ModelOptions
from kvtune.study.caption_log import CaptionLog, read_captions
from kvtune.study.deadline import Deadline, TimeIsUp, Waves
from kvtune.study.manifest import Manifest
from kvtune.study.pace import Pace
from kvtune.study.subsets import Image, coco_of

if TYPE_CHECKING:
    from kvtune.captioning import CaptionRequest
    from kvtune.captioning.request import Work
    from kvtune.methods import Method


OnProgress = Callable[[Pace], None]

Number = int | None
"""A trial's number; None is the baseline."""


class CaptionWriter(Protocol):
    """What a search needs of :class:`kvtune.captioning.Captioner`."""

    def run(self, requests: Iterable[Any], on_work: "Callable[[Work], None]" = ...) -> Iterator[Any]:
        """Captions as they finish, in any order; ``on_work`` is called several times a caption."""

    def withdraw(self, tag: Any) -> None:
        """Give no captions for requests of ``tag`` any more."""


def caption_images(
    captioner: CaptionWriter,
    images: Sequence[Image],
    methods: "Mapping[Number, Method | None]",
    logs: Mapping[Number, CaptionLog],
    on_caption: Callable[[Number], None],
    stopped: Set[Number] = frozenset(),
    waves: Waves | None = None,
    pace: Pace | None = None,
    on_work: Callable[[], None] = lambda: None,
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
    waves
        How many captions to begin at once, so that they are whole before a deadline; at the deadline itself those in
        flight are lost.
    pace
        Is told what is done.
    on_work
        Called several times a caption.

    Returns
    -------
    dict
        Number and reason of each trial whose own captions fail while the model works without a method.

    Raises
    ------
    KvtuneError
        If captioning fails for a reason that is no trial's own: an image, the disk, the device.
    """

    waves, pace = waves or Waves(Deadline()), pace or Pace()
    deadline = waves.deadline
    active = [number for number in methods if number not in stopped]
    missing = sum(image_id not in logs[number] for number in active for image_id, _ in images)
    pace.begin(missing, len(active))

    def worked(work: "Work") -> None:
        pace.work(work)
        on_work()
        deadline.check()

    def run(some: "Mapping[Number, Method | None]") -> None:
        while (size := waves.size()) != 0:
            requests = _Counted(islice(_requests(images, some, logs, stopped), size))
            captions = 0
            for caption in deadline.until(captioner.run(requests, worked)):
                if caption.tag not in stopped:
                    keep(caption)
                    captions += 1
                deadline.check()
            waves.ended(captions)
            if size is None or requests.count < size:
                return

    withdrawn: set[Number] = set()

    def keep(caption: Any) -> None:
        logs[caption.tag].append(caption.image_id, caption.text, len(caption.token_ids), caption.finish_reason)
        pace.caption(len(caption.token_ids))
        on_caption(caption.tag)
        for number in stopped - withdrawn:
            captioner.withdraw(number)
            withdrawn.add(number)

    try:
        run(methods)
        return {}
    except TimeIsUp:
        return {}
    except KvtuneError as error:
        raise _stopped(error) from error
    except Exception as error:
        together = error
    failures: dict[Number, Exception] = {}
    for number, method in methods.items():
        try:
            if number not in stopped:
                run({number: method})
        except TimeIsUp:
            return {}
        except KvtuneError as error:
            raise _stopped(error) from error
        except Exception as error:
            failures[number] = error
    if None in failures or (failures and not _works_without_method(captioner, images[0])):
        raise _stopped(failures.get(None, together)) from together
    return {number: _reason(error) for number, error in failures.items()}


class _Counted(Iterator["CaptionRequest"]):
    """Requests, and how many of them were asked for."""

    def __init__(self, requests: "Iterator[CaptionRequest]") -> None:
        self.count = 0
        self._requests = requests

    def __next__(self) -> "CaptionRequest":
        request = next(self._requests)
        self.count += 1
        return request


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


@dataclass(frozen=True)
class Setting:
    """What to caption: with which method (None for none), and the file that the captions go to."""

    method: "Method | None"
    file: Path


def caption_settings(
    manifest: Manifest,
    image_ids: Sequence[int],
    settings: Mapping[Number, Setting],
    coco: Path | None = None,
    engine: EngineOptions = DEFAULT_ENGINE,
    on_progress: OnProgress = lambda pace: None,
) -> None:
    """Caption these images with every setting as the study's model does, but for the captions that are there already.

    No model is loaded if nothing is missing. The caller holds the study's lock.

    Parameters
    ----------
    coco
        Where the images are; None for where they were.
    on_progress
        Called with how far it is, several times a caption.

    Raises
    ------
    RequestError
        If the model or an image is missing, or the model is not the one that the study was searched with.
    KvtuneError
        If captioning fails; all captions so far are kept.
    """

    def prepare() -> tuple[CaptionWriter, list[Image]]:
        images = _images(manifest, image_ids, coco)
        return _captioner(manifest, engine), images

    caption_files(image_ids, settings, prepare, on_progress)


def caption_files(
    image_ids: Sequence[int],
    settings: Mapping[Number, Setting],
    prepare: Callable[[], tuple[CaptionWriter, Sequence[Image]]],
    on_progress: OnProgress = lambda pace: None,
    known: Collection[int] | None = None,
    pace: Pace | None = None,
) -> None:
    """Caption these images with every setting in one stream, but for the captions that the files hold already.

    Parameters
    ----------
    settings
        By any numbers; None is the baseline, whose failure is no setting's own.
    prepare
        Gives the captioner and the images; called only if a caption is missing.
    on_progress
        Called with how far it is, several times a caption.
    known
        Images that the files may hold captions of; these images alone if not given.
    pace
        Of a longer work of which this is a part.

    Raises
    ------
    KvtuneError
        If captioning fails; all captions so far are kept.
    """
    allowed = set(image_ids if known is None else known)
    held = {number: _held(setting, allowed) for number, setting in settings.items()}
    missing = {number: setting for number, setting in settings.items() if not held[number].keys() >= set(image_ids)}
    pace = pace or Pace()
    pace.found([held[number][image_id] for number in settings for image_id in image_ids if image_id in held[number]])
    if not missing:
        return
    captioner, images = prepare()  # before a file is made
    with ExitStack() as stack:
        logs = {number: stack.enter_context(closing(CaptionLog(each.file))) for number, each in missing.items()}
        methods = {number: setting.method for number, setting in missing.items()}
        failures = caption_images(
            captioner,
            images,
            methods,
            logs,
            lambda number: None,
            pace=pace,
            on_work=lambda: on_progress(pace),
        )
        on_progress(pace)
    if failures:
        number, reason = next(iter(failures.items()))
        raise KvtuneError(f"captioning {settings[number].file.stem} failed: {reason}; all other captions are kept")


def _held(setting: Setting, allowed: set[int]) -> dict[int, int]:
    """The images that a setting has captions of, and how many tokens these have."""
    held = {image_id: line["tokens"] for image_id, line in read_captions(setting.file).items()}
    if strange := held.keys() - allowed:
        raise KvtuneError(f"{setting.file} has a caption of image {min(strange)}, which is not asked for; remove it")
    return held


def _images(manifest: Manifest, image_ids: Sequence[int], coco: Path | None) -> list[Image]:
    folder = CocoFolder(coco_of(manifest.fingerprint.model, coco) or manifest.coco)
    return list(zip(image_ids, folder.image_paths(image_ids), strict=True))


def _captioner(manifest: Manifest, engine: EngineOptions) -> CaptionWriter:
    from kvtune.captioning import open_captioner

    begun = manifest.fingerprint
    options = ModelOptions(begun.model, begun.dtype, begun.revision, engine=engine)
    captioner = open_captioner(options, begun.prompt, begun.max_new_tokens)
    vlm = captioner.vlm
    if (vlm.revision, vlm.dtype_name) != (begun.revision, begun.dtype):
        raise RequestError(
            f"the study was searched with {begun.model} at revision {begun.revision} in {begun.dtype}, but the model "
            f"here is at revision {vlm.revision} in {vlm.dtype_name}; put the same weights there"
        )
    return captioner
