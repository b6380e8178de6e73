"""Judging settings: their captions of the same images scored, resampled together, and compared with the baseline."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from kvtune.analysis.result import Difference, Result
from kvtune.chair import METRICS, Scores
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.statistics.paired import holm
from kvtune.study.caption_log import captions_of
from kvtune.study.captioning import Setting
from kvtune.study.scoring import Scoring

K = TypeVar("K", bound=Hashable)


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
    images = sorted(image_ids)
    tables = {key: scoring.counts(captions_of(setting.file, images)).table for key, setting in settings.items()}
    bootstrap = Bootstrap(np.stack(list(tables.values())))
    place = {key: index for index, key in enumerate(tables)}
    compared = differences({key: index for key, index in place.items() if key not in apart}, bootstrap, baseline)
    return {
        key: Result(
            metrics=Scores.of(table.sum(axis=0), images=len(images), scorer=scoring.version),
            intervals=bootstrap.intervals(place[key]),
            differences=compared.get(key, {}),
        )
        for key, table in tables.items()
    }


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
    found: dict[K, dict[str, Difference]] = {key: {} for key in others}
    for metric in METRICS:
        p_values = [bootstrap.p_value(metric, index, origin) for index in others.values()]
        for (key, index), p_value, adjusted in zip(
            others.items(), p_values, holm([*p_values, *[1.0] * given_up]), strict=False
        ):
            value, interval = bootstrap.difference(metric, index, origin)
            found[key][metric] = Difference(value, interval, p_value, adjusted)
    return found
