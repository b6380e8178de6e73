"""The captions that trials were judged by, and whether they are still there as they were scored."""

from typing import Any, Literal

from kvtune.errors import KvtuneError, cure_apart
from kvtune.study.caption_log import captions_sha256, read_captions
from kvtune.study.manifest import Manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger, Trial

Kind = Literal["missing", "unreadable", "changed"]


class LostCaptionsError(KvtuneError):
    """Captions of a judged trial are missing, or are others than were scored; one line that says how to mend it.

    Attributes
    ----------
    what
        The fault without its cure.
    kind
        ``missing`` (some or all), ``unreadable`` (a line is no caption) or ``changed`` (all there, but others).
    count, images
        How many captions it is about, as far as that is known, and how many were scored.
    """

    def __init__(self, what: str, cure: str, kind: Kind, count: int, images: int) -> None:
        super().__init__(f"{what}; {cure}")
        self.what, self.kind, self.count, self.images = what, kind, count, images


def judged_captions(folder: StudyFolder, manifest: Manifest, trial: Trial) -> list[dict[str, Any]]:
    """The captions that a trial's scores are of, in the order of the images.

    Raises
    ------
    LostCaptionsError
        If they are not all there, or are not what was scored (which older studies do not tell).
    """
    path, image_ids = folder.trial_captions(trial.number), manifest.judged_images(trial)
    again = f"kvtune search with the options of {folder.name} writes them again"
    try:
        found = read_captions(path)
    except KvtuneError as error:
        what, _ = cure_apart(error, path)
        raise LostCaptionsError(what, again, "unreadable", len(image_ids), len(image_ids)) from None
    missing = [image_id for image_id in image_ids if image_id not in found]
    if missing:
        what = f"{path} has no caption of image {missing[0]} ({len(missing)} missing)"
        raise LostCaptionsError(what, again, "missing", len(missing), len(image_ids))
    captions = [found[image_id] for image_id in image_ids]
    if trial.captions is not None and captions_sha256(captions) != trial.captions:
        cure = f"{again}, kvtune rescore {folder.argument} scores them as they are"
        raise LostCaptionsError(
            f"{path} has other captions than were scored", cure, "changed", len(image_ids), len(image_ids)
        )
    return captions


def lost_captions(folder: StudyFolder, manifest: Manifest, ledger: Ledger) -> dict[int | None, LostCaptionsError]:
    """What is wrong with the captions of each judged trial of which something is; None is the baseline."""
    lost: dict[int | None, LostCaptionsError] = {}
    for trial in ledger.judged:
        try:
            judged_captions(folder, manifest, trial)
        except LostCaptionsError as error:
            lost[trial.number] = error
    return lost
