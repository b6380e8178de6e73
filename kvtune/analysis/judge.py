"""Judging settings: their captions of the same images scored, resampled together, and compared with the baseline."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kvtune.analysis.result import Difference, Result
from kvtune.chair import METRICS, Scores
from kvtune.statistics.bootstrap import RESAMPLES, SEED, Bootstrap
from kvtune.statistics.confidence import CONFIDENCE
from kvtune.statistics.paired import holm
from kvtune.study.caption_log import captions_of
from kvtune.study.captioning import Setting
from kvtune.study.scoring import Scoring

K = TypeVar("K", bound=Hashable)

STATISTICS: dict[str, Any] = {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED, "adjustment": "holm"}
"""What intervals and p-values are made with, as documents say it."""


def judge(
    settings: Mapping[K, Setting],
    image_ids: Sequence[int],
    scoring: Scoring,
    baseline: Hashable = None,
    apart: Collection[Hashable] = (),
) -> dict[K, Result]:
    """Judge settings by the captions that their files hold.

    Parameters
    ----------
    settings
        By any keys.
    image_ids
        The images. Their order does not matter: they are resampled in the order of their ids, so that the same captions
        give the same intervals everywhere.
    baseline
        The setting that the others are compared with; no differences if there is no such key.
    apart
        Settings that are not compared.

    Raises
    ------
    RequestError
        If an image has no ground truth.
    KvtuneError
        If a caption is missing.
    """
    scores, bootstrap = resampled({key: setting.file for key, setting in settings.items()}, image_ids, scoring)
    place = {key: index for index, key in enumerate(scores)}
    compared = differences({key: index for key, index in place.items() if key not in apart}, bootstrap, baseline)
    return {
        key: Result(metrics=found, intervals=bootstrap.intervals(place[key]), differences=compared.get(key, {}))
        for key, found in scores.items()
    }


def resampled(files: Mapping[K, Path], image_ids: Sequence[int], scoring: Scoring) -> tuple[dict[K, Scores], Bootstrap]:
    """The captions of these images in each file scored, and resampled together.

    Returns
    -------
    (dict, Bootstrap)
        Scores by the files' keys; a bootstrap of settings in their order, of images in the order of their ids.

    Raises
    ------
    RequestError
        If an image has no ground truth.
    KvtuneError
        If a caption is missing.
    """
    images = sorted(image_ids)
    tables = [scoring.counts(captions_of(file, images)).table for file in files.values()]
    sums = zip(files, (table.sum(axis=0) for table in tables), strict=True)
    scores = {key: Scores.of(totals, images=len(images), scorer=scoring.version) for key, totals in sums}
    return scores, Bootstrap(np.stack(tables))


def differences(
    place: Mapping[K, int], bootstrap: Bootstrap, baseline: Hashable = None, given_up: int = 0
) -> dict[K, dict[str, Difference]]:
    """Every setting minus the baseline, by key and metric; p-values adjusted over the settings, metric by metric.

    Parameters
    ----------
    place
        Key to index in ``bootstrap``.
    baseline
        Its key; without it there are no differences.
    given_up
        Settings that were tried on the same images and are not in ``bootstrap``. Whether one is depends on how it did,
        so p-values are adjusted for these too, as for settings that differ in nothing.
    """
    if baseline not in place:
        return {}
    others = {key: index for key, index in place.items() if key != baseline}
    origin = next(index for key, index in place.items() if key == baseline)
    found = paired_differences([(index, origin) for index in others.values()], bootstrap, METRICS, given_up)
    return dict(zip(others, found, strict=True))


def paired_differences(
    pairs: Sequence[tuple[int, int]], bootstrap: Bootstrap, metrics: Iterable[str], given_up: int = 0
) -> list[dict[str, Difference]]:
    """The first setting of each pair minus the second, by metric; p-values adjusted over the pairs, metric by metric.

    Parameters
    ----------
    pairs
        Of indices in ``bootstrap``.
    given_up
        As for :func:`differences`.
    """
    found: list[dict[str, Difference]] = [{} for _ in pairs]
    for metric in metrics:
        p_values = [bootstrap.p_value(metric, *pair) for pair in pairs]
        adjusted = holm([*p_values, *[1.0] * given_up])
        for each, pair, p_value, p_adjusted in zip(found, pairs, p_values, adjusted, strict=False):
            each[metric] = Difference(*bootstrap.difference(metric, *pair), p_value, p_adjusted)
    return found
