"""The constant factors as they did on the tune images, and which is the best."""

from collections.abc import Mapping, Sequence
from typing import Any

from kvtune.analysis.judge import judge
from kvtune.chair import load_ground_truth
from kvtune.coco import Subset
from kvtune.coco.subset import ids_sha256
from kvtune.methods import KVSmooth
from kvtune.presets import SubsetInfo
from kvtune.reproduce.documents import FactorPoint, FactorSweep, ModelFolder
from kvtune.reproduce.paper_settings import LAMBDAS, choose_factor, constant_parameters
from kvtune.study.captioning import Setting
from kvtune.study.scoring import Scoring


def scoring_of(folder: ModelFolder, image_ids: Sequence[int]) -> Scoring:
    """The scorer for these images; the file may hold more, of a run with more images."""
    truth = load_ground_truth(folder.ground_truth)
    return Scoring({image_id: truth[image_id] for image_id in image_ids})


def factor_settings(folder: ModelFolder, published: Mapping[str, Any]) -> dict[float, Setting]:
    """Every constant factor as a setting on the tune images."""
    return {
        factor: Setting(KVSmooth(**constant_parameters(published, factor)), folder.tune_captions(factor))
        for factor in LAMBDAS
    }


def factor_sweep(
    settings: Mapping[float, Setting], scoring: Scoring, tune_ids: Sequence[int], tune: Subset
) -> FactorSweep:
    """The constant factors as they did on the tune images, which begin ``tune``, and the one that is chosen."""
    judged = judge(settings, tune_ids, scoring)
    return FactorSweep(
        chosen=choose_factor({factor: result.metrics for factor, result in judged.items()}),
        subset=SubsetInfo(
            name=f"{tune.source}-{len(tune_ids)}-seed{tune.seed}",
            sha256=ids_sha256(tune_ids),
            images=len(tune_ids),
        ),
        points=[
            FactorPoint(factor=factor, metrics=result.metrics, intervals=result.intervals)
            for factor, result in judged.items()
        ],
    )
