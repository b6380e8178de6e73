"""--gpus-per-worker: which GPUs a worker has, what is refused, and a checkpoint loaded onto several."""

import pytest
import torch
from pretended_cards import PretendedCards
from published_configs import PUBLISHED
from small_vlms import random_images

from kvtune.captioning import Captioner, CaptionRequest, planning
from kvtune.errors import RequestError
from kvtune.models import get_family, load_model, loading
from kvtune.models.opening import check_options, own_device, worker_devices
from kvtune.models.options import EngineOptions, ModelOptions
from kvtune.models.spread import cards_of
from kvtune.models.weight_memory import check_memory, spans_for, weight_bytes_of


def engine(device="auto", gpus=2, **more):
    return EngineOptions(device, gpus_per_worker=gpus, **more)


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        (engine(), "cuda:0,cuda:1"),
        (engine("cuda", 3), "cuda:0,cuda:1,cuda:2"),
        (engine("cuda:3,cuda:1"), "cuda:3,cuda:1"),
        (engine(workers=1), "cuda:0,cuda:1"),
        (engine("cuda:0", 1), "cuda:0"),
    ],
)
def test_one_worker_is_the_command_itself(four_gpus, asked, devices):
    assert not asked.has_workers
    assert own_device(asked) == devices
    check_options(ModelOptions("demo", engine=asked))


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        (engine(workers=2), ["cuda:0,cuda:1", "cuda:2,cuda:3"]),
        (engine("cuda:3,cuda:2,cuda:1,cuda:0"), ["cuda:3,cuda:2", "cuda:1,cuda:0"]),
        (engine("cuda:0,cuda:1,cuda:2,cuda:3", workers=2), ["cuda:0,cuda:1", "cuda:2,cuda:3"]),
        (engine("cuda:0,cuda:1", 1), ["cuda:0", "cuda:1"]),
        (engine(cluster="auto", gpus=8), []),
    ],
)
def test_gpus_of_several_workers(four_gpus, asked, devices):
    pytest.importorskip("ray", reason="pip install 'kvtune[cluster]'")
    assert asked.has_workers
    assert worker_devices(asked) == devices
    check_options(ModelOptions("demo", engine=asked))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (engine(gpus=0), "--gpus-per-worker must be at least 1, not 0"),
        (engine(gpus=0, workers=2), "--gpus-per-worker must be at least 1, not 0"),
        (engine(workers=0), "--workers must be at least 1, not 0"),
        (engine(gpus=5), "--gpus-per-worker 5: that takes 5 GPUs, and there are 4"),
        (engine(workers=3), "--workers 3 --gpus-per-worker 2: that takes 6 GPUs, and there are 4"),
        (engine("cpu"), "--gpus-per-worker 2: there is no GPU with --device cpu; leave it out"),
        (engine("cpu", workers=2), "there is no GPU with --device cpu"),
        (engine("cpu", cluster="auto", workers=2), "there is no GPU with --device cpu"),
        (engine("cuda:0,cpu"), "there is no GPU with --device cuda:0,cpu"),
        (engine("cuda:1"), "names 1 GPU, which cannot be divided into workers of 2; name a multiple of 2"),
        (engine("cuda:0,cuda:1,cuda:2"), "names 3 GPUs, which cannot be divided into workers of 2"),
        (engine("cuda:0,cuda:0"), "names a device twice"),
        (engine("cuda:0,cuda:7"), "there are 4 GPUs, counted from 0"),
        (engine("cuda:0,cuda:1,cuda:2,cuda:3", workers=3), "4 GPUs for 2 workers of 2; leave --workers 3 out"),
        (engine("cuda:0,cuda:1", cluster="auto"), "--cluster takes the GPUs that are free there"),
    ],
)
def test_wrong_requests_are_a_line(four_gpus, asked, why):
    with pytest.raises(RequestError) as refused:
        check_options(ModelOptions("demo", engine=asked))
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_gpus_are_counted_among_the_visible_ones(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(RequestError, match=r"there is 1 GPU of CUDA_VISIBLE_DEVICES=3, counted from 0$"):
        own_device(engine("cuda:3", 1))


def test_more_gpus_than_one_model_takes_are_a_line(four_gpus):
    with pytest.raises(RequestError, match="name 2 GPUs with --device, not more"):
        own_device(engine("cuda:0,cuda:1,cuda:2,cuda:3"))


def test_several_devices_for_one_model_are_told_how_to_share_it(four_gpus):
    with pytest.raises(RequestError, match=r"name one device, or add --gpus-per-worker 2 to divide its layers"):
        own_device(engine("cuda:0,cuda:1", 1))


def test_no_gpu_and_random_weights_are_a_line():
    with pytest.raises(RequestError, match="no GPU with --device auto"):
        check_options(ModelOptions("demo", engine=engine()))
    with pytest.raises(RequestError, match="random weights are built on one GPU"):
        check_options(ModelOptions("llava-1.5", random_weights=True, engine=engine()))


GIB = 2**30


def spans_of(monkeypatch, free, name="llava-1.5", dtype=torch.float16):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free[device.index] * GIB), 80 * GIB))
    cards = [torch.device("cuda", number) for number in range(len(free))]
    needed = weight_bytes_of(get_family(name), PUBLISHED[name](), dtype, None)
    assert needed.decoder_layers == "model.language_model.layers"
    return spans_for("m", cards, needed)


def test_layers_are_divided_by_what_is_free(monkeypatch):
    # The vision tower and embeddings are 1.1 of 13.2 GiB.
    assert spans_of(monkeypatch, [24, 24]) == [range(16), range(16, 32)]
    assert spans_of(monkeypatch, [8, 24]) == [range(6), range(6, 32)]
    assert [len(span) for span in spans_of(monkeypatch, [12, 12, 6, 6])] == [10, 12, 5, 5]


def test_cards_too_small_and_layers_too_few_are_a_line(monkeypatch):
    with pytest.raises(
        RequestError,
        match=r"about 15 GiB .* in float16, in whole layers, and cuda:0, cuda:1 have 6, 8 GiB free; give a larger --",
    ):
        spans_of(monkeypatch, [6, 8])
    with pytest.raises(RequestError, match=r"m has 32 layers .* fewer than the 33 GPUs of a worker"):
        spans_of(monkeypatch, [10] * 33)


def test_a_model_too_large_for_one_of_several_gpus_is_told_of_the_others(four_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, 80 * GIB))
    needed = weight_bytes_of(get_family("llava-1.5"), PUBLISHED["llava-1.5"](), torch.half, None)
    with pytest.raises(RequestError, match="or divide it among several with --gpus-per-worker"):
        check_memory("m", torch.device("cuda", 0), needed)


@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl", "minigpt4"])
@pytest.mark.parametrize("quantization", [None, "4bit"])
def test_bytes_are_told_of_each_layer(name, quantization):
    family, config = get_family(name), PUBLISHED[name]()
    of = weight_bytes_of(family, config, torch.float16, quantization)
    assert len(of.layers) == config.get_text_config(decoder=True).num_hidden_layers
    assert len(set(of.layers)) == 1


CARDS = [torch.device("cpu", number) for number in range(2)]


@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl", "qwen3-vl", "instructblip"])
def test_a_checkpoint_loaded_onto_two_cards_writes_what_one_writes(checkpoint, loaded, monkeypatch, name):
    requests = [CaptionRequest(number, image, None, number) for number, image in enumerate(random_images(2))]
    alone = {one.tag: one.token_ids for one in Captioner(loaded(name), max_new_tokens=12).run(requests)}
    monkeypatch.setattr(loading, "resolve_devices", lambda device: CARDS)
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    with PretendedCards():
        vlm = load_model(checkpoint(name), dtype="float64")
        assert [card.device for card in cards_of(vlm.decoder)] == CARDS
        beside = {id(weight) for layer in vlm.decoder.layers for weight in layer.parameters()}
        assert {weight.device for weight in vlm.hf_model.parameters() if id(weight) not in beside} == {CARDS[0]}
        assert vlm.device_name == "cpu:0,cpu:1"
        written = {one.tag: one.token_ids for one in Captioner(vlm, max_new_tokens=12).run(requests)}
    assert written == alone
