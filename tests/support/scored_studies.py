"""Studies of the fake captioner that are scored by the real scorer, so that their numbers can be resampled."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_search import FakeCaptioner, FakeRequest, fake_images, new_study, run_search, truth

from kvtune.chair import save_ground_truth
from kvtune.coco import Subset
from kvtune.models.options import ModelOptions, parse_lanes
from kvtune.study.scoring import Scoring
from kvtune.study.study_folder import StudyFolder

HOLDOUT = [5003, 5001, 5002, *range(5010, 5040)]


def scored_study(path: Path, images: int = 40, trials: int = 8, **options: Any) -> StudyFolder:
    """A searched study, its ground truth with it; no torch. The same study is searched once and copied."""
    try:
        searched = _searched(path.name, images, trials, **options)
    except TypeError:  # a captioner or a space, which say not whether they are equal
        return _search(path, images, trials, **options)
    return StudyFolder(shutil.copytree(searched, path))


@cache
def _searched(name: str, images: int, trials: int, **options: Any) -> Path:
    return _search(Path(tempfile.mkdtemp(dir=_SEARCHED.name)) / name, images, trials, **options).path


_SEARCHED = tempfile.TemporaryDirectory()


def _search(path: Path, images: int, trials: int, captioner: Any = None, **options: Any) -> StudyFolder:
    ground_truth = {image_id: truth(image_id) for image_id in [*(i for i, _ in fake_images(images)), *HOLDOUT]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "kvtune.captioning", SimpleNamespace(CaptionRequest=FakeRequest))
        folder, manifest = new_study(path, images=images, **options)
        manifest = manifest.model_copy(update={"holdout": Subset.of("holdout", "val2014", HOLDOUT, 0)})
        manifest.save(folder.manifest)
        run_search(folder, manifest, trials, captioner=captioner, scoring=Scoring(ground_truth))
    save_ground_truth(ground_truth, folder.ground_truth)
    return folder


def fake_engine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for model and captioner, and counts what they are asked for; stops where a test says so."""
    seen = SimpleNamespace(opened=[], asked=[], revision=None, stop_after=None)

    class Captioner(FakeCaptioner):
        def __init__(self, options: ModelOptions, prompt: str, max_new_tokens: int) -> None:
            super().__init__(in_flight=5)
            parse_lanes(options.engine.lanes)
            assert (prompt, max_new_tokens) == ("Describe.", 64)
            seen.opened.append(options)
            self.vlm = SimpleNamespace(revision=seen.revision, dtype_name=options.dtype)

        def finish(self, batch: list[Any]) -> Iterator[Any]:
            for caption in super().finish(batch):
                if seen.stop_after is not None and len(seen.asked) >= seen.stop_after:
                    raise KeyboardInterrupt
                seen.asked.append((caption.tag, caption.image_id))
                yield caption

    captioning = SimpleNamespace(CaptionRequest=FakeRequest, open_captioner=Captioner)
    monkeypatch.setitem(sys.modules, "kvtune.captioning", captioning)
    return seen
