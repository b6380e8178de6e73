"""A whole search, scored and raced, whose captions pretended workers make faster than it can take them."""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kvtune.bench.cluster.pretended import PretendedBackend, pretended_model
from kvtune.bench.score import made_up_captions
from kvtune.captioning import CaptionRequest
from kvtune.captioning.cluster.data_parallel import DataParallelCaptioner
from kvtune.captioning.cluster.pool import WorkerPool
from kvtune.chair.vocabulary import load_vocabulary
from kvtune.coco import Subset
from kvtune.search.loop import Search
from kvtune.search.view import View
from kvtune.spaces import space_for
from kvtune.statistics.confidence import RACE_CONFIDENCE
from kvtune.statistics.racing import Race
from kvtune.study import search_defaults
from kvtune.study.fingerprint import Fingerprint
from kvtune.study.manifest import FORMAT, Manifest, versions
from kvtune.study.scoring import Scoring
from kvtune.study.study_folder import StudyFolder

_TEXTS = 20_000
"""Different captions."""

_TOKENS_A_WORD = 1.3


@dataclass(frozen=True)
class DriverBench:
    """What one driver can take, as ``kvtune bench cluster --json`` prints it.

    Attributes
    ----------
    workers, trials, images
        Size of the search.
    captions
        Captions that were written, scored and raced, the baseline's included.
    offered
        Captions a second that the workers made at most.
    seconds, cpu_seconds
        By the clock, and of the driver's processor time without what it takes to pretend.
    captions_a_second
        By processor time: what else runs on the machine does not count.
    peak_mib
        Most memory of the process, PyTorch's and the made-up captions' included.
    """

    workers: int
    trials: int
    images: int
    captions: int
    offered: float
    seconds: float
    cpu_seconds: float
    captions_a_second: float
    peak_mib: float


def bench_driver(
    workers: int,
    trials: int,
    images: int,
    words: int = 90,
    rate: float = 20_000.0,
    parallel_trials: int = search_defaults.PARALLEL_TRIALS,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> DriverBench:
    """Search with pretended workers, in a temporary folder.

    Parameters
    ----------
    words
        Words of a caption at least.
    rate
        Captions a second of all workers together.
    """
    texts = [
        (text, int(_TOKENS_A_WORD * words)) for text in made_up_captions(min(_TEXTS, trials * images), words, seed)
    ]

    def write(request: CaptionRequest) -> tuple[str, int]:
        return texts[hash((request.image_id, request.tag)) % len(texts)]

    backend = PretendedBackend([rate / workers] * workers, write)
    pool = WorkerPool(backend, {})
    pool.start()
    with tempfile.TemporaryDirectory() as parent:
        folder = StudyFolder(Path(parent) / "bench")
        manifest = _manifest(images, parallel_trials, seed)
        manifest.save(folder.manifest)
        files = [(image_id, Path(f"{image_id}.jpg")) for image_id in manifest.tune.image_ids]
        view = _Counting(on_progress, (trials + 1) * images)
        search = Search(folder, manifest, DataParallelCaptioner(pool), files, Scoring(_truth(images, seed)), view)
        wall, cpu, before = time.perf_counter(), time.process_time(), backend.cpu_seconds
        search.run(trials)
        seconds = time.perf_counter() - wall
        cpu_seconds = time.process_time() - cpu - (backend.cpu_seconds - before)
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib
    return DriverBench(
        workers, trials, images, view.captions, rate, seconds, cpu_seconds, view.captions / cpu_seconds, peak
    )


class _Counting(View):
    def __init__(self, on_progress: Callable[[int, int], None], total: int) -> None:
        self.captions, self._on_progress, self._total = 0, on_progress, total

    def caption(self, number: int | None) -> None:
        self.captions += 1
        if self.captions % 1000 == 0:
            self._on_progress(self.captions, self._total)


def _manifest(images: int, parallel_trials: int, seed: int) -> Manifest:
    model = pretended_model()
    tune = Subset.of("made-up", "val2014", list(range(1, images + 1)), seed)
    fingerprint = Fingerprint(
        model=model.model_id,
        revision=None,
        prompt=model.default_prompt,
        max_new_tokens=512,
        subset=tune.sha256,
        method="kvsmooth",
        dtype=model.dtype_name,
        seed=seed,
        sampler="tpe",
        parallel_trials=parallel_trials,
        space=space_for("kvsmooth", (model.name,), model.n_layers).fitted(model.n_layers),
        race_confidence=RACE_CONFIDENCE,
    )
    return Manifest(
        format=FORMAT,
        id="bench",
        created="2026-01-01T00:00:00+00:00",
        fingerprint=fingerprint,
        model=model.name,
        family=model.family.name,
        layers=model.n_layers,
        published=[],
        tune=tune,
        holdout=Subset.of("none", "val2014", [images + 1], seed),
        coco="",
        versions=versions(),
        device=model.device_name,
        lanes="auto",
        scorer="",
        looks=list(Race.of(images, RACE_CONFIDENCE).looks),
    )


def _truth(images: int, seed: int) -> dict[int, set[str]]:
    draw = random.Random(seed)
    categories = sorted(set(load_vocabulary().category_of.values()))
    return {image: set(draw.sample(categories, 3)) for image in range(1, images + 1)}
