"""Captioning with many settings at once, every caption kept as it comes: a round's, held-out images', a sweep's."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvtune.coco import CocoFolder
from kvtune.errors import KvtuneError, RequestError
from kvtune.models.options import EngineOptions, ModelOptions
from kvtune.study.caption_log import CaptionLog, ImageId, read_captions
from kvtune.study.deadline import TimeIsUp
from kvtune.study.manifest import Manifest
from kvtune.study.pace import Pace
from kvtune.study.streams import Captioning, CaptionWriter, Number, Stream
from kvtune.study.study_folder import StudyFolder
from kvtune.study.subsets import Image, coco_of

if TYPE_CHECKING:
    from kvtune.captioning import AnyCaptioner
    from kvtune.methods import Method


OnProgress = Callable[[Pace], None]


@dataclass(frozen=True)
class Setting:
    """What to caption: with which method (None for none), and the file that the captions go to."""

    method: "Method | None"
    file: Path


def caption_images(wanted: Stream) -> Captioning[dict[Number, str]]:
    """Caption every image with every method, except what the logs hold already; a work of :mod:`kvtune.study.streams`.

    The trials go through one stream of requests. If that fails, each goes again alone, so that one trial's failure
    takes no other with it. What is captioned at the end of the time is lost where it is not whole.

    Returns
    -------
    dict
        Number and reason of each trial whose own captions fail while the model works without a method.

    Raises
    ------
    KvtuneError
        If captioning fails for a reason that is no trial's own: an image, the disk, the device.
    """
    wanted.pace.begin(wanted.missing, sum(number not in wanted.stopped for number in wanted.methods))
    try:
        yield wanted
        return {}
    except TimeIsUp:
        return {}
    except KvtuneError as error:
        raise _stopped(error) from error
    except Exception as error:
        first = error
    failures: dict[Number, Exception] = {}
    for number, method in wanted.methods.items():
        try:
            if number not in wanted.stopped:
                yield replace(wanted, methods={number: method}, apart=True)
        except TimeIsUp:
            return {}
        except KvtuneError as error:
            raise _stopped(error) from error
        except Exception as error:
            failures[number] = error
    if None in failures or (failures and not (yield from _works_without_method(wanted))):
        raise _stopped(failures.get(None, first)) from first
    return {number: _reason(error) for number, error in failures.items()}


def caption_settings(
    folder: StudyFolder,
    manifest: Manifest,
    image_ids: Sequence[int],
    settings: Mapping[Number, Setting],
    coco: Path | None,
    engine: EngineOptions,
    on_progress: OnProgress,
    captioner: "AnyCaptioner | None" = None,
) -> Captioning[None]:
    """Caption these images with every setting as the study's model does, but for the captions that are there already.

    A work of :mod:`kvtune.study.streams`. No model is loaded if nothing is missing. The caller holds the study's lock.

    Parameters
    ----------
    coco
        Where the images are; None for where they were.
    on_progress
        Called with how far it is, several times a caption.
    captioner
        One of the study's model, prompt and tokens; None opens one.

    Raises
    ------
    RequestError
        If the model or an image is missing, or the model is not the one that the study was searched with.
    KvtuneError
        If captioning fails; all captions so far are kept.
    """

    def prepare() -> tuple[CaptionWriter, list[Image]]:
        images = _images(manifest, image_ids, coco)
        return captioner or _captioner(manifest, engine), images

    pace = Pace()
    baseline = read_captions(folder.trial_captions(None))  # captions to come are about as long
    pace.expect([line["tokens"] for line in baseline.values()])
    yield from caption_files(image_ids, settings, prepare, on_progress, pace=pace)


def caption_files(
    image_ids: Sequence[int],
    settings: Mapping[Number, Setting],
    prepare: Callable[[], tuple[CaptionWriter, Sequence[Image]]],
    on_progress: OnProgress = lambda pace: None,
    known: Collection[int] | None = None,
    pace: Pace | None = None,
) -> Captioning[None]:
    """Caption these images with every setting in one stream, but for the captions that the files hold already.

    A work of :mod:`kvtune.study.streams`.

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
        stream = Stream(captioner, images, methods, logs, pace=pace, on_work=lambda: on_progress(pace))
        failures = yield from caption_images(stream)
        on_progress(pace)
    if failures:
        number, reason = next(iter(failures.items()))
        raise KvtuneError(f"captioning {settings[number].file.stem} failed: {reason}; all other captions are kept")


class _Count:
    """A log that keeps no captions and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __contains__(self, image_id: ImageId) -> bool:
        return self.count > 0

    def append(self, image_id: ImageId, caption: str, tokens: int, finish_reason: str) -> None:
        self.count += 1


def _works_without_method(wanted: Stream) -> Captioning[bool]:
    kept = _Count()
    try:
        yield Stream(wanted.captioner, wanted.images[:1], {None: None}, {None: kept}, apart=True)
    except Exception:
        return False
    return kept.count == 1


def _stopped(error: Exception) -> KvtuneError:
    again = "once that is mended, the same command goes on from here"
    return KvtuneError(f"captioning stopped: {_reason(error)}; no caption is lost, and {again}")


def _reason(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if isinstance(error, KvtuneError) else f"{type(error).__name__}: {text}"


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
