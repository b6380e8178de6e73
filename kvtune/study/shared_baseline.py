"""Baseline captions taken over from another study of the same model on the same images, instead of written again."""

from collections.abc import Sequence
from pathlib import Path

from kvtune.files import write_bytes
from kvtune.study.caption_log import read_captions
from kvtune.study.manifest import Manifest
from kvtune.study.study_folder import StudyFolder

_SAME = ("model", "revision", "prompt", "max_new_tokens", "subset", "dtype")
"""What of the fingerprint captions without a method follow from."""


def take_baseline(folder: StudyFolder, manifest: Manifest, source: StudyFolder, other: Manifest) -> None:
    """Copy the baseline's captions, of tune and held-out images, where a study has none and the other has them all.

    Nothing is taken from a study of another model, prompt or other images. Captions that are there are left alone.
    """
    if any(getattr(manifest.fingerprint, name) != getattr(other.fingerprint, name) for name in _SAME):
        return
    _take(folder.trial_captions(None), source.trial_captions(None), manifest.tune.image_ids)
    if manifest.holdout.sha256 == other.holdout.sha256:
        _take(folder.holdout_captions("baseline"), source.holdout_captions("baseline"), manifest.holdout.image_ids)


def _take(to: Path, there: Path, image_ids: Sequence[int]) -> None:
    if not to.exists() and read_captions(there).keys() >= set(image_ids):
        write_bytes(to, there.read_bytes())
