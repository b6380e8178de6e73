"""A search without a model: captions that follow from image and parameters, and a study folder to put them in."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kvtune.chair import CaptionCounts
from kvtune.coco import Subset
from kvtune.search.loop import Search
from kvtune.search.view import View
from kvtune.spaces import SearchSpace, default_space
from kvtune.statistics.racing import Race
from kvtune.study.deadline import Deadline
from kvtune.study.fingerprint import Fingerprint
from kvtune.study.manifest import FORMAT, Manifest, Published, Start, versions
from kvtune.study.study_folder import StudyFolder

LAYERS = 8
OBJECTS = ("dog", "cat", "car", "chair", "cup", "bottle", "bench", "bird")
PUBLISHED = {
    "lambda_ref": 0.7,
    "queue_length": 15,
    "clip_width": 0.2,
    "start_layer": 1,
    "end_layer": 7,
    "adaptive": True,
    "target": "kv",
}


@dataclass(frozen=True)
class FakeRequest:
    """Stands in for kvtune.captioning.CaptionRequest, whose package imports torch."""

    image_id: int
    image: Any
    method: Any = None
    tag: Any = None
    max_new_tokens: Any = None


def chance(*parts: object) -> float:
    """A number in [0, 1) that follows from ``parts``."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6]) / 2**48


@cache
def truth(image_id: int) -> frozenset[str]:
    """The objects in an image."""
    found = frozenset(name for name in OBJECTS if chance("truth", image_id, name) < 0.4)
    return found or frozenset([OBJECTS[image_id % len(OBJECTS)]])


def caption_text(image_id: int, method: Any, shared_luck: bool = False) -> str:
    """What the model says: smoothing removes false objects first and true ones later.

    With ``shared_luck`` an image is as hard for every setting, as it is for a real model, and a wide clip ruins the
    captions; else each caption is a draw of its own. Methods other than KVSmooth are as strong as their parameters
    happen to be.
    """
    strength, luck = 0.0, shared_luck or method is None or method.parameters()
    if method is not None and method.name != "kvsmooth":
        strength = chance("strength", method.parameters())
    elif method is not None:
        layers = (method.end_layer - method.start_layer) / LAYERS
        strength = method.lambda_ref * layers * (1 - abs(math.log(method.queue_length / 12)) / 8)
    named = []
    for name in OBJECTS:
        real = name in truth(image_id)
        likely = 0.9 - 0.6 * max(0.0, strength - 0.15) if real else 0.35 * max(0.0, 1 - 1.3 * strength)
        if shared_luck and method is not None and method.name == "kvsmooth" and method.clip_width > 0.35:
            likely = 0.6
        if chance("said", image_id, name, luck) < likely:
            named.append(name)
    return "There is " + ", ".join(f"a {name}" for name in named or ["thing"]) + "."


class FakeCaptioner:
    """Pulls requests a few at a time and gives captions in another order, as the engine may.

    Attributes
    ----------
    asked
        (tag, image id) of every request, in order.
    batches
        Tags that each batch mixed.
    withdrawn
        Tags that nothing more was wanted of.
    """

    def __init__(self, in_flight: int = 8, shared_luck: bool = False) -> None:
        self.in_flight, self.shared_luck = in_flight, shared_luck
        self.asked: list[tuple[Any, int]] = []
        self.batches: list[set[Any]] = []
        self.withdrawn: set[Any] = set()

    def check(self, method: Any) -> None:
        """Every method can serve."""

    def withdraw(self, tag: Any) -> None:
        self.withdrawn.add(tag)

    def run(self, requests: Iterable[Any], on_work: Callable[[Any], None] = lambda work: None) -> Iterator[Any]:
        waiting: list[Any] = []
        work = SimpleNamespace(prompts=0, tokens=0, in_flight=0, cost=0.0, room=0, by_image=False, rows=None, by="")
        for request in requests:
            self.asked.append((request.tag, request.image_id))
            waiting.append(request)
            if len(waiting) == self.in_flight:
                yield from self.finish(waiting)
                waiting = []
                work.tokens += self.in_flight
                on_work(work)
        yield from self.finish(waiting)
        work.tokens += len(waiting)
        on_work(work)

    def finish(self, batch: list[Any]) -> Iterator[Any]:
        self.batches.append({request.tag for request in batch})
        for request in reversed(batch):
            if request.tag in self.withdrawn:
                continue
            text = caption_text(request.image_id, request.method, self.shared_luck)
            yield SimpleNamespace(
                image_id=request.image_id,
                text=text,
                token_ids=tuple(range(len(text.split()))),
                finish_reason="eos",
                tag=request.tag,
            )


class WordScoring:
    """CHAIR for captions that name every object by its one word; quick, and of any version."""

    def __init__(self, version: str = "words-1", blind_to: str = "") -> None:
        self.version = version
        self.identity = f"{version} truth"
        self.blind_to = blind_to

    def _objects(self, line: dict[str, Any]) -> tuple[set[str], frozenset[str]]:
        said = {word.strip(".,") for word in line["caption"].split()} & set(OBJECTS) - {self.blind_to}
        return said, truth(line["image_id"]) - {self.blind_to}

    def counts(self, captions: list[dict[str, Any]]) -> CaptionCounts:
        rows = []
        for line in captions:
            said, real = self._objects(line)
            false, words = len(said - real), len(line["caption"].split())
            rows.append([1, int(false > 0), len(said), false, len(said), len(said & real), len(real), words])
        return CaptionCounts(np.array([line["image_id"] for line in captions]), np.array(rows))

    def score(self, captions: list[dict[str, Any]]) -> dict[str, Any]:
        named = hallucinated = sentences = found = there = words = 0
        for line in captions:
            said, real = self._objects(line)
            named, found, there = named + len(said), found + len(said & real), there + len(real)
            hallucinated += len(said - real)
            sentences += bool(said - real)
            words += len(line["caption"].split())
        precision, recall = 100 * found / max(1, named), 100 * found / max(1, there)
        return {
            "chair_s": 100 * sentences / len(captions),
            "chair_i": 100 * hallucinated / max(1, named),
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / max(1e-9, precision + recall),
            "mean_words": words / len(captions),
            "images": len(captions),
            "scorer": self.version,
        }


def fake_images(count: int = 10) -> list[tuple[int, Path]]:
    """Images that nobody opens."""
    return [(1000 + 7 * index, Path(f"{index}.jpg")) for index in range(count)]


def new_study(
    path: Path,
    images: int = 10,
    sampler: str = "random",
    parallel_trials: int = 4,
    seed: int = 0,
    space: SearchSpace | None = None,
    published: bool = True,
    race: float | None = None,
    min_f1: str | None = None,
    min_words: str | None = None,
    start: Start | None = None,
) -> tuple[StudyFolder, Manifest]:
    """A study's folder with its manifest and nothing else."""
    folder = StudyFolder(path)
    space = (space or default_space("kvsmooth", LAYERS)).fitted(LAYERS)
    tune = Subset.of("tune", "val2014", [image_id for image_id, _ in fake_images(images)], 0)
    manifest = Manifest(
        format=FORMAT,
        id=f"id-of-{path}",
        created="2026-01-01T00:00:00+00:00",
        fingerprint=Fingerprint(
            model="fake",
            revision=None,
            prompt="Describe.",
            max_new_tokens=64,
            subset=tune.sha256,
            method=str(space.alternatives),
            dtype="float32",
            seed=seed,
            sampler=sampler,  # type: ignore[arg-type]
            parallel_trials=parallel_trials,
            space=space,
            race_confidence=race,
            min_f1=min_f1,
            min_words=min_words,
        ),
        model="fake",
        family="fake",
        layers=LAYERS,
        published=[Published(name="fake", parameters=PUBLISHED, enqueued=True)] if published else [],
        tune=tune,
        holdout=Subset.of("holdout", "val2014", [1, 2], 0),
        coco="/nowhere",
        versions=versions(),
        device="cpu",
        lanes="auto",
        scorer="words-1",
        looks=[] if race is None else list(Race.of(images).looks),
        start=start,
    )
    manifest.save(folder.manifest)
    return folder, manifest


def run_search(
    folder: StudyFolder,
    manifest: Manifest,
    trials: int,
    captioner: Any = None,
    scoring: Any = None,
    view: View | None = None,
    storage: str | None = None,
    deadline: Deadline | None = None,
) -> Any:
    """Search, with fakes where nothing else is given; the captioner comes back."""
    captioner = captioner or FakeCaptioner()
    images = fake_images(len(manifest.tune.image_ids))
    Search(folder, manifest, captioner, images, scoring or WordScoring(), view or View(), storage, deadline).run(trials)
    return captioner
