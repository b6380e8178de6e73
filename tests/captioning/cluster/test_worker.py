"""A worker without Ray: messages in, reports out, what an ordinary captioner writes."""

import sys
import time
from collections import deque
from itertools import islice
from pathlib import Path

import pytest
import torch
from small_vlms import random_images, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.captioning.cluster.messages import Batch, Settings
from kvtune.captioning.cluster.worker import Worker, weights_digest
from kvtune.errors import LostDeviceError, RequestError

IMAGES = random_images(5)
METHOD = KVSmooth(lambda_ref=0.6, queue_length=4, clip_width=0.3, start_layer=0, end_layer=2)
MODEL = small_vlm()
SETTINGS = Settings(None, 12, "auto", True)


def numbered(images, first=0):
    return [(first + n, CaptionRequest(n, image, METHOD, "tag")) for n, image in enumerate(images)]


def fetched(worker, count):
    """Reports until so many captions have come."""
    captions, reports = [], []
    until = time.monotonic() + 60
    while len(captions) < count and time.monotonic() < until:
        reports.append(worker.report(0.2))
        captions += reports[-1].captions
        if reports[-1].absent or reports[-1].error or reports[-1].lost:
            break
    return captions, reports


@pytest.fixture
def worker():
    worker = Worker(Captioner(MODEL, max_new_tokens=12))
    worker.begin(1)
    return worker


def test_requests_that_come_one_after_the_other_are_captioned_as_ever(worker):
    alone = {c.image_id: c.token_ids for c in Captioner(MODEL, max_new_tokens=12).run([r for _, r in numbered(IMAGES)])}
    for number, request in numbered(IMAGES):
        worker.take(Batch(SETTINGS, [(number, request)]))
    captions, reports = fetched(worker, len(IMAGES))
    assert {number: tokens for number, _, tokens, _ in captions} == alone
    assert reports[-1].run == 1
    first = reports[-1].work
    worker.take(Batch(Settings(None, 3, "auto", True), numbered(IMAGES, 100)))  # other settings, after all were done
    captions, reports = fetched(worker, len(IMAGES))
    assert {number - 100: tokens for number, _, tokens, _ in captions} == {n: ids[:3] for n, ids in alone.items()}
    both = reports[-1].work
    assert both.tokens <= 15 * len(IMAGES)
    assert both.prompts == 2 * first.prompts
    assert both.prompts_cost == pytest.approx(2 * first.prompts_cost) and first.prompts_cost > 0


def test_what_is_dropped_does_not_come_and_a_new_run_begins_with_nothing(worker):
    worker.take(Batch(SETTINGS, numbered(IMAGES)))
    worker.drop([0])
    captions, _ = fetched(worker, len(IMAGES) - 1)
    assert set(range(1, len(IMAGES))) <= {number for number, *_ in captions}
    worker.take(Batch(SETTINGS, numbered(IMAGES, 10)))
    worker.begin(2)
    worker.take(Batch(SETTINGS, numbered(IMAGES[:1], 20)))
    captions, reports = fetched(worker, 1)
    assert [number for number, *_ in captions] == [20]
    assert reports[-1].run == 2


def test_an_image_that_is_not_here_is_asked_for(worker, tmp_path):
    IMAGES[0].save(tmp_path / "here.png")
    content = (tmp_path / "here.png").read_bytes()
    elsewhere, other = Path("/nowhere/a.png"), tmp_path / "other.png"
    other.write_bytes(b"another picture of that name")
    worker.take(Batch(SETTINGS, numbered([elsewhere, other]), {elsewhere: len(content), other: len(content)}))
    _, reports = fetched(worker, 1)
    assert sorted(path for report in reports for path in report.absent) == sorted([elsewhere, other])
    for path in (elsewhere, other):
        worker.bring(path, content)
    captions, _ = fetched(worker, 2)
    ours = next(Captioner(MODEL, max_new_tokens=12).run([CaptionRequest(0, IMAGES[0], METHOD)]))
    assert [tokens for _, _, tokens, _ in captions] == [ours.token_ids] * 2


def test_what_goes_wrong_is_reported_and_the_worker_goes_on(worker, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for run, name in enumerate(("broken.png", "absent.png"), 2):
        worker.take(Batch(SETTINGS, numbered([tmp_path / name])))
        _, reports = fetched(worker, 1)
        assert isinstance(reports[-1].error, RequestError) and name in str(reports[-1].error)
        worker.begin(run)
    worker.take(Batch(SETTINGS, numbered(IMAGES[:1], 5)))
    assert [number for number, *_ in fetched(worker, 1)[0]] == [5]


class LostAfterTwo(Captioner):
    def run(self, requests, on_work):
        yield from islice(super().run(requests, on_work), 2)
        raise LostDeviceError("the GPU does nothing more for this process")


def test_a_lost_device_is_reported_with_the_captions_before_it():
    worker = Worker(LostAfterTwo(MODEL, max_new_tokens=12))
    worker.take(Batch(SETTINGS, numbered(IMAGES)))
    captions, reports = fetched(worker, len(IMAGES))
    assert len(captions) == 2
    assert reports[-1].lost == "the GPU does nothing more for this process" and reports[-1].error is None


class Swallower:
    """A captioner that takes requests and writes nothing."""

    prompt, max_new_tokens, lanes, cuda_graphs, keep_images = None, 12, "auto", True, True

    def run(self, requests, on_work):
        deque(requests, maxlen=0)
        return iter(())

    def withdraw(self, tag):
        pass


def test_a_new_run_begins_while_the_queue_is_taken_from():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        worker, request = Worker(Swallower()), CaptionRequest(0, IMAGES[0])
        for run in range(60):
            worker.take(Batch(SETTINGS, [(number, request) for number in range(1000)]))
            worker.begin(run)
        worker.no_more()
    finally:
        sys.setswitchinterval(before)


def test_the_digest_of_weights_is_that_of_the_same_weights_alone():
    model = small_vlm().hf_model
    digest = weights_digest(model)
    assert weights_digest(small_vlm().hf_model) == digest
    parameter = list(model.parameters())[-1]
    with torch.no_grad():
        parameter.add_(1e-3)
    assert weights_digest(model) != digest
    with torch.no_grad():
        parameter.sub_(1e-3)
    assert weights_digest(model.to(torch.bfloat16)) != digest
