"""Random weights: the published architectures at their sizes, and the same way of building on small ones."""

import pytest
import torch
from published_configs import PUBLISHED
from small_architectures import SMALL
from small_vlms import random_images

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.errors import RequestError
from kvtune.models import get_family, random_weights
from kvtune.models.published import MODELS
from kvtune.models.random_weights import ARCHITECTURES, Architecture, random_model

CPU = torch.device("cpu")


@pytest.fixture(params=SMALL)
def small(request, monkeypatch):
    name = request.param
    monkeypatch.setitem(random_weights.ARCHITECTURES, name, Architecture(ARCHITECTURES[name].family, SMALL[name]))
    return name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_sizes(name):
    """Parameter for parameter the model that loads under this name, and as many as are published."""
    with torch.device("meta"):
        mine = get_family(name).model_class()(ARCHITECTURES[name].config())
        published = get_family(name).model_class()(PUBLISHED[name]())
    shapes = {key: parameter.shape for key, parameter in mine.named_parameters()}
    assert shapes == {key: parameter.shape for key, parameter in published.named_parameters()}
    assert round(sum(map(torch.Size.numel, shapes.values())) / 1e9, 2) == MODELS[name].billions
    assert issubclass(ARCHITECTURES[name].family, type(get_family(name)))


def test_built_on_the_device_it_is_what_building_it_there_gives(small):
    vlm = random_model(small, CPU)
    usual = vlm.family.model_class()(SMALL[small]())
    assert all(torch.isfinite(parameter).all() for parameter in vlm.hf_model.parameters())
    assert not any(tensor.is_meta for tensor in vlm.hf_model.state_dict().values())
    matrices = [parameter for parameter in vlm.hf_model.parameters() if parameter.ndim > 1]
    assert all(0.01 < matrix.detach().std().item() < 0.03 for matrix in matrices)
    for (name, mine), (other, theirs) in zip(vlm.hf_model.named_buffers(), usual.named_buffers(), strict=True):
        assert name == other
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    again = random_model(small, CPU)
    for mine, theirs in zip(vlm.hf_model.parameters(), again.hf_model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_captions_have_the_forced_lengths(small):
    vlm = random_model(small, CPU)
    method = KVSmooth(0.5, 5, 0.2, 0, 3)
    requests = [CaptionRequest(n, image, method, n, 5 + 3 * n) for n, image in enumerate(random_images(4))]
    lengths = {caption.tag: len(caption.token_ids) for caption in Captioner(vlm, max_new_tokens=50).run(requests)}
    assert lengths == {n: 5 + 3 * n for n in range(4)}


def test_half_precision_is_what_loading_gives(small):
    vlm = random_model(small, CPU, "bfloat16")
    assert vlm.dtype == torch.bfloat16
    tower = vlm.hf_model.vision_model if small == "instructblip" else vlm.hf_model.model.vision_tower
    assert {p.dtype for p in tower.parameters()} == {torch.float32 if small == "instructblip" else torch.bfloat16}
    images = random_images(2)
    assert len(list(Captioner(vlm, max_new_tokens=4).run([CaptionRequest(n, images[n]) for n in range(2)]))) == 2


def test_others_are_refused():
    with pytest.raises(
        RequestError, match=r"--random-weights builds llava-1.5, llava-1.5-13b, instructblip, not 'qwen"
    ):
        random_model("qwen2.5-vl", CPU)
