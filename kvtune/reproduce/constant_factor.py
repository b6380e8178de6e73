"""Scores of captions with their uncertainty, and the constant factors as they did on the tune images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kvtune.analysis.outcomes import Outcomes
from kvtune.chair import load_ground_truth
from kvtune.coco.subset import ids_sha256
from kvtune.reproduce.documents import ModelFolder, Sweep, SweepPoint
from kvtune.reproduce.paper_settings import LAMBDAS, choose_factor
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.study.caption_log import captions_of
from kvtune.study.scoring import Scoring


def scoring_of(folder: ModelFolder, image_ids: Sequence[int]) -> Scoring:
    """The scorer for these images; the file may hold more, of a run with more images."""
    truth = load_ground_truth(folder.ground_truth)
    return Scoring({image_id: truth[image_id] for image_id in image_ids})


def sweep_of(folder: ModelFolder, scoring: Scoring, tune_ids: Sequence[int], tune: Mapping[str, Any]) -> Sweep:
    """The constant factors as they did on the tune images, which begin ``tune``, and the one that is chosen."""
    captions = {factor: captions_of(folder.tune_captions(factor), tune_ids) for factor in LAMBDAS}
    bootstrap = bootstrap_of(scoring, list(captions.values()))
    metrics = {factor: scoring.score(lines) for factor, lines in captions.items()}
    return Sweep(
        chosen=choose_factor(metrics),
        subset={
            "name": f"{tune['source']}-{len(tune_ids)}-seed{tune['seed']}",
            "sha256": ids_sha256(tune_ids),
            "images": len(tune_ids),
        },
        points=[
            SweepPoint(factor=factor, metrics=metrics[factor], intervals=bootstrap.intervals(index))
            for index, factor in enumerate(LAMBDAS)
        ],
    )


def bootstrap_of(scoring: Scoring, captions: Sequence[Sequence[Mapping[str, Any]]]) -> Bootstrap:
    outcomes = Outcomes(None, scoring)
    return Bootstrap(np.stack([outcomes.of(lines).counts for lines in captions]))
