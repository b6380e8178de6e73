"""Studies of the fake captioner that are scored by the real scorer, so that their numbers can be resampled."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_search import FakeRequest, fake_images, new_study, run_search, truth

from kvtune.chair import save_ground_truth
from kvtune.search.layout import StudyFolder
from kvtune.search.scoring import Scoring

HOLDOUT = [5003, 5001, 5002, *range(5010, 5040)]


def scored_study(path: Path, images: int = 40, trials: int = 8, captioner: Any = None, **options: Any) -> StudyFolder:
    """A searched study, its ground truth with it; no torch."""
    ground_truth = {image_id: truth(image_id) for image_id in [*(i for i, _ in fake_images(images)), *HOLDOUT]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "kvtune.captioning", SimpleNamespace(CaptionRequest=FakeRequest))
        folder, manifest = new_study(path, images=images, **options)
        manifest = manifest.model_copy(
            update={"holdout": {"name": "holdout", "sha256": "1" * 64, "image_ids": HOLDOUT}}
        )
        manifest.save(folder)
        run_search(folder, manifest, trials, captioner=captioner, scoring=Scoring(ground_truth))
    save_ground_truth(ground_truth, folder.ground_truth)
    return folder
