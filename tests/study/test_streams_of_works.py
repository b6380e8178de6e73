"""Works that caption side by side: what they share, what they do not, and whose failure is whose."""

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_search import FakeCaptioner, fake_images

from kvtune.errors import KvtuneError, LostDeviceError, RequestError
from kvtune.methods import PAI, KVSmooth
from kvtune.study.caption_log import read_captions
from kvtune.study.captioning import Setting, caption_files, caption_images
from kvtune.study.pace import Pace
from kvtune.study.streams import Captioning, Number, Stream
from kvtune.study.together import Together, alone

IMAGES = fake_images(12)
METHODS: dict[str, dict[Number, Any]] = {
    "a": {number: KVSmooth(lambda_ref=number / 10) for number in range(3)},
    "b": {number: PAI(alpha=number / 10) for number in range(3)},
}


class Log:
    """Captions in memory; full after so many."""

    def __init__(self, room: int = 10**6) -> None:
        self.texts: dict[int, str] = {}
        self.room = room

    def __contains__(self, image_id: object) -> bool:
        return image_id in self.texts

    def append(self, image_id: int, caption: str, tokens: int, finish_reason: str) -> None:
        if len(self.texts) == self.room:
            raise KvtuneError("the disk is full")
        self.texts[image_id] = caption


class Study:
    """A baseline, then two rounds, as a search has them."""

    def __init__(self, methods: Mapping[Number, Any], captioner: Any, room: int = 10**6, stop_after: int = 0) -> None:
        self.logs: dict[Number, Log] = {number: Log() for number in (None, *methods)} | {2: Log(room)}
        self.methods, self.captioner, self.stop_after = methods, captioner, stop_after
        self.stopped: set[Number] = set()
        self.failures: dict[Number, str] = {}
        self.pace, self.closed = Pace(), False

    def _written(self, number: Number) -> None:
        if self.stop_after and number == 1 and len(self.logs[1].texts) == self.stop_after:
            self.stopped.add(1)

    def work(self) -> Captioning[str]:
        try:
            for numbers in ((None,), (0, 1), (2,)):
                methods = {number: self.methods.get(number) for number in numbers}
                wanted = Stream(self.captioner, IMAGES, methods, self.logs, self._written, self.stopped, pace=self.pace)
                self.failures |= yield from caption_images(wanted)
            return "done"
        finally:
            self.closed = True

    @property
    def texts(self) -> dict[Number, dict[int, str]]:
        return {number: log.texts for number, log in self.logs.items()}


def by_itself(methods: Mapping[Number, Any], **options: Any) -> Study:
    study = Study(methods, FakeCaptioner(), **options)
    assert alone(study.work()) == "done"
    return study


def together(captioner: Any, **options: Any) -> tuple[dict[str, Study], Together[str]]:
    studies = {name: Study(methods, captioner, **options.get(name, {})) for name, methods in METHODS.items()}
    running: Together[str] = Together({name: study.work() for name, study in studies.items()}, Pace())
    running.run()
    return studies, running


def test_each_is_what_it_is_alone_and_they_share_images_and_the_baseline() -> None:
    captioner = FakeCaptioner(in_flight=5)
    studies, running = together(captioner)
    assert running.results == {"a": "done", "b": "done"} and not running.failures
    for name, study in studies.items():
        assert study.texts == by_itself(METHODS[name]).texts
    asked = [image_id for (_, number), image_id in captioner.asked if number is None]
    assert asked == [image_id for image_id, _ in IMAGES], "without a method each image is captioned once"
    rounds = [image_id for (_, number), image_id in captioner.asked if number in (0, 1)]
    assert rounds == [image_id for image_id, _ in IMAGES for _ in range(4)], "neighbours share a prefill"
    assert running.tokens["a"] > running.tokens["b"] > 0


def test_what_one_stops_goes_on_in_the_other() -> None:
    captioner = FakeCaptioner(in_flight=4)
    studies, _ = together(captioner, a={"stop_after": 5})
    assert captioner.withdrawn == {("a", 1)}
    assert len(studies["a"].logs[1].texts) == 5 and len(studies["b"].logs[1].texts) == len(IMAGES)
    assert studies["b"].texts == by_itself(METHODS["b"]).texts


class Fragile(FakeCaptioner):
    """Fails at a method, with whatever else is in flight."""

    def finish(self, batch: list[Any]) -> Iterator[Any]:
        if any(request.method == METHODS["a"][1] for request in batch):
            raise ValueError("no such thing")
        yield from super().finish(batch)


def test_a_trial_that_fails_is_its_studys_alone() -> None:
    studies, running = together(Fragile(in_flight=6))
    assert running.results == {"a": "done", "b": "done"}
    assert studies["a"].failures == {1: "ValueError: no such thing"} and not studies["b"].failures
    assert studies["b"].texts == by_itself(METHODS["b"]).texts
    assert studies["a"].texts == by_itself(METHODS["a"]).texts | {1: {}}


def test_a_trial_that_fails_alone_is_its_own() -> None:
    study = Study(METHODS["a"], Fragile(in_flight=6))
    assert alone(study.work()) == "done" and study.failures == {1: "ValueError: no such thing"}
    assert study.texts == by_itself(METHODS["a"]).texts | {1: {}}


def test_a_study_that_fails_takes_no_other_with_it() -> None:
    studies, running = together(FakeCaptioner(in_flight=6), a={"room": 3})
    assert running.results == {"b": "done"}
    assert "captioning stopped: the disk is full; no caption is lost" in str(running.failures["a"])
    assert len(studies["a"].logs[2].texts) == 3 and studies["a"].closed
    assert studies["b"].texts == by_itself(METHODS["b"]).texts


def test_a_model_that_fails_fails_all_of_them() -> None:
    class Broken(FakeCaptioner):
        def finish(self, batch: list[Any]) -> Iterator[Any]:
            raise ValueError("no model")
            yield

    studies, running = together(Broken())
    assert not running.results and sorted(map(str, running.failures)) == ["a", "b"]
    assert all("no model" in str(error) for error in running.failures.values())
    assert all(study.closed for study in studies.values())


def test_who_stops_it_finds_all_closed_and_every_caption_kept() -> None:
    class Stopped(FakeCaptioner):
        given = 0

        def finish(self, batch: list[Any]) -> Iterator[Any]:
            for caption in super().finish(batch):
                self.given += 1
                if self.given == 40:
                    raise KeyboardInterrupt
                yield caption

    captioner = Stopped()
    studies = {name: Study(methods, captioner) for name, methods in METHODS.items()}
    running: Together[str] = Together({name: study.work() for name, study in studies.items()})
    with pytest.raises(KeyboardInterrupt):
        running.run()
    assert all(study.closed for study in studies.values())
    kept = sum(len(log.texts) for study in studies.values() for log in study.logs.values())
    assert kept == 39 + 12, "the baseline's captions are both studies'"


def test_a_work_that_refuses_to_begin_is_told_before_anything_is_captioned() -> None:
    captioner = FakeCaptioner()
    study = Study(METHODS["a"], captioner)

    def refuses() -> Captioning[str]:
        raise RequestError("give another --seed")
        yield

    running: Together[str] = Together({"a": study.work(), "b": refuses()})
    with pytest.raises(RequestError, match="give another --seed"):
        running.run()
    assert study.closed and not captioner.asked


def test_progress_is_that_of_all() -> None:
    captioner = FakeCaptioner(in_flight=6)
    seen: list[tuple[int, int]] = []
    works: dict[Hashable, Captioning[str]] = {n: Study(m, captioner).work() for n, m in METHODS.items()}
    pace = Pace()
    Together(works, pace, lambda pace: seen.append((pace.there, pace.total))).run()
    assert pace.there == pace.total == 2 * 4 * len(IMAGES)
    assert [there for there, _ in seen] == sorted(there for there, _ in seen) and len(seen) > 10


@pytest.mark.parametrize("after", [0, 7, 40])
def test_a_lost_device_ends_all_works_and_is_asked_for_nothing_more(after: int) -> None:
    """One that hangs would be waited for by each of them."""

    class Lost(FakeCaptioner):
        runs = 0

        def run(self, requests: Any, on_work: Any = lambda work: None) -> Iterator[Any]:
            self.runs += 1
            for count, caption in enumerate(super().run(requests, on_work)):
                if self.runs == first and count == after:
                    break
                yield caption
            if self.runs >= first:
                raise LostDeviceError("the GPU hangs")

    first, captioner = 2, Lost()
    studies, running = together(captioner)
    assert captioner.runs == first
    assert running.failures.keys() == studies.keys()
    for failure in running.failures.values():
        assert isinstance(failure, KvtuneError)
        assert str(failure).startswith("captioning stopped: the GPU hangs; no caption is lost, and")
    assert not any(study.failures for study in studies.values())


def test_a_setting_that_fails_alone_is_named_and_all_other_captions_are_kept(tmp_path: Path) -> None:
    class Failing(FakeCaptioner):
        def finish(self, batch: list[Any]) -> Iterator[Any]:
            if any(isinstance(request.method, PAI) for request in batch):
                raise ValueError("no such head")
            yield from super().finish(batch)

    settings = {
        0: Setting(METHODS["a"][1], tmp_path / "good.jsonl"),
        1: Setting(METHODS["b"][1], tmp_path / "bad.jsonl"),
    }
    image_ids = [image_id for image_id, _ in IMAGES]
    with pytest.raises(KvtuneError, match=r"^captioning bad failed: ValueError: no such head; all other captions are"):
        alone(caption_files(image_ids, settings, lambda: (Failing(), IMAGES)))
    assert read_captions(tmp_path / "good.jsonl").keys() == set(image_ids)
    assert not read_captions(tmp_path / "bad.jsonl")
