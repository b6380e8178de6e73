"""A preset at work: images captioned into one file, at the engine's speed, each once however often it is stopped."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvtune.apply.made_with import FORMAT, MadeWith, Skipped, about, load_made_with
from kvtune.apply.refused_images import caption_all
from kvtune.apply.with_preset import NO_PRESET, Choice, WithPreset, open_with_preset, readable_images_for
from kvtune.errors import KvtuneError, RequestError
from kvtune.files import check_writable
from kvtune.locks import is_locked, locked_file
from kvtune.models.options import ModelOptions
from kvtune.presets import Preset
from kvtune.study.caption_log import NamedLog, tokens_of
from kvtune.study.captioning import OnProgress
from kvtune.study.fingerprint import model_in_fingerprint
from kvtune.study.manifest import versions
from kvtune.study.pace import Pace
from kvtune.study.streams import NamedImage

_TOKENS_A_WORD = 1.15
"""Of captions, whose punctuation counts as words."""


@dataclass(frozen=True)
class Job:
    """What is to be captioned, how, and into which file.

    Attributes
    ----------
    images
        As :func:`kvtune.apply.image_list.list_images` gives them.
    prompt, max_new_tokens
        The preset's where None.
    skip_broken
        Go on without images that cannot be read, or that the model cannot take.
    """

    images: Sequence[NamedImage]
    out: Path
    model: ModelOptions
    choice: Choice = None
    prompt: str | None = None
    max_new_tokens: int | None = None
    skip_broken: bool = False


@dataclass
class Done:
    """What came of a job.

    Attributes
    ----------
    captions
        Of the job's images, in the file now.
    written
        Those of them that this run wrote, in ``seconds`` after the model was ready.
    skipped
        Images without a caption, and why.
    made_with
        What the file's captions depend on.
    """

    captions: int
    made_with: MadeWith | None
    written: int = 0
    seconds: float = 0.0
    skipped: dict[Path, str] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float | None:
        """Of this run; None where it wrote nothing."""
        return self.written / self.seconds if self.written and self.seconds else None


def caption_into_file(
    job: Job,
    on_checked: Callable[[int, int], None] = lambda done, total: None,
    on_progress: OnProgress = lambda pace: None,
    note: Callable[[str], None] = lambda text: None,
) -> Done:
    """Caption images into a file of caption lines, but for those that it has captions of already.

    Lines are appended as captions end, in no fixed order; a line that a kill cut short is cut off. The same call goes
    on. No model is loaded if nothing is missing.

    Parameters
    ----------
    on_checked
        Called with (images opened once, images to open), before the model is loaded.
    on_progress
        Called with how far it is, several times a caption.
    note
        Says something once.

    Raises
    ------
    RequestError
        If something asked for is wrong or missing, an image cannot be read and is not skipped, or the file was written
        with other settings or is being written; nothing was written.
    KvtuneError
        If captioning fails midway; all captions so far are kept.
    """
    _check_out(job.out)
    begun = load_made_with(job.out)
    if begun is not None:
        begun.refuse_difference(job.out, _known(job))
    held = tokens_of(job.out)
    missing = [image for image in job.images if image[0] not in held]
    here = len(job.images) - len(missing)
    readable, broken = readable_images_for(job.model, missing, job.skip_broken, on_checked)
    for path, why in broken.items():
        note(f"skipped {path}: {why}")
    if not readable:
        if not here:
            raise RequestError(f"none of the {len(job.images)} images can be read")
        return Done(here, begun, skipped=broken)
    options = job.model
    if begun is not None and options.revision is None:
        options = replace(options, revision=begun.revision)
    work = open_with_preset(options, job.choice, job.prompt, job.max_new_tokens, keep_images=False)
    if work.method is None and job.choice is None:
        note("no preset is published for this model: captions are written without a method, as by --preset none")
    now = _made_with(work, broken)
    with _writing(job.out):
        begun = load_made_with(job.out)
        if begun is not None:
            begun.refuse_difference(job.out, now.model_dump(mode="json"))
        now.save(about(job.out))
        with closing(NamedLog(job.out)) as log:
            before, began = len(log), time.monotonic()
            pace = Pace(_usual_tokens(work))
            pace.found([log.tokens[name] for name, _ in job.images if name in log])
            refused = caption_all(work, readable, log, pace, lambda: on_progress(pace), job.skip_broken, note)
            seconds = time.monotonic() - began
            if refused:
                broken |= refused
                now = _made_with(work, broken)
                now.save(about(job.out))
            written = len(log) - before
            return Done(sum(name in log for name, _ in job.images), now, written, seconds, broken)


def _usual_tokens(work: WithPreset) -> float:
    """Tokens of a caption to come, by those of the study that the preset is from, if it is from one."""
    preset = work.preset
    words = preset.metrics.tune.get("mean_words") if preset is not None and preset.metrics is not None else None
    return _TOKENS_A_WORD * words if words else work.captioner.vlm.family.usual_tokens


def _check_out(out: Path) -> None:
    check_writable(out)
    check_writable(about(out))
    if out.exists() and not out.is_file():
        raise RequestError(f"{out} is no file that can be gone on with; name another --out")
    if is_locked(out):
        raise _in_use(out)


def _in_use(out: Path) -> RequestError:
    return RequestError(f"{out} is being written by another process; wait for it, or name another --out")


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Hold the right to write a file of captions, by the file's own lock."""
    new = not out.exists()
    try:
        file = locked_file(out)
    except BlockingIOError:
        raise _in_use(out) from None
    except OSError as error:
        raise KvtuneError(f"cannot write {out}: {error.strerror or error}; name another --out") from error
    try:
        yield
    finally:
        if new and not os.fstat(file).st_size:
            out.unlink(missing_ok=True)
            about(out).unlink(missing_ok=True)
        os.close(file)


def _known(job: Job) -> dict[str, Any]:
    """What the captions will depend on, as far as it is known before the model is loaded."""
    from kvtune.models import commit_of, locate

    _, source, name = locate(job.model.name)
    known: dict[str, Any] = {"model": model_in_fingerprint(name, source)}
    known |= {"prompt": job.prompt, "max_new_tokens": job.max_new_tokens}
    if job.model.revision is not None:
        known["revision"] = commit_of(job.model.name, job.model.revision)
    if isinstance(job.choice, Preset):
        generation = job.choice.generation
        known["prompt"] = generation.prompt if job.prompt is None else job.prompt
        known["max_new_tokens"] = job.max_new_tokens or generation.max_new_tokens
        known |= {"method": job.choice.method_name, "parameters": job.choice.method().parameters()}
    known = {key: value for key, value in known.items() if value is not None}
    return known | ({"method": None} if job.choice == NO_PRESET else {})


def _made_with(work: WithPreset, skipped: dict[Path, str]) -> MadeWith:
    captioner, preset, vlm = work.captioner, work.preset, work.captioner.vlm
    return MadeWith(
        format=FORMAT,
        model=model_in_fingerprint(vlm.name, vlm.model_id),
        revision=vlm.revision,
        dtype=vlm.dtype_name,
        method=None if preset is None else preset.method_name,
        parameters={} if work.method is None else work.method.parameters(),
        prompt=captioner.question,
        max_new_tokens=captioner.max_new_tokens,
        preset=None if preset is None else preset.name,
        versions=versions(),
        skipped=[Skipped(image=str(path), reason=why) for path, why in skipped.items()],
    )
