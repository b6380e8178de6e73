"""The published checkpoints' sizes from their public configurations: layers, visual tokens, parameters, GPU memory."""

import pytest
import torch
from published_configs import CLIP_L_336, PUBLISHED

from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.hf import text_decoder
from kvtune.models import get_family, loading
from kvtune.models.published import MODELS
from kvtune.models.weight_memory import check_memory, weight_bytes_of

LAYERS = {"internvl3.5": 36, "internvl3.5-4b": 36, "llava-onevision": 28, "llava-onevision-0.5b": 24, "gemma3": 34}
LAYERS |= {"gemma3-12b": 48, "gemma3-27b": 62, "smolvlm2": 24}
LAYERS |= {"llava-1.5-13b": 40, "qwen2.5-vl": 28, "qwen3-vl": 36, "qwen3-vl-4b": 36, "qwen3-vl-2b": 28}


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_and_parameters(name):
    with torch.device("meta"):
        model = get_family(name).model_class()(PUBLISHED[name]())
    assert len(text_decoder(model).layers) == LAYERS.get(name, 32)
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert round(parameters, 2) == MODELS[name].billions
    in_16_bits = weight_bytes_of(get_family(name), PUBLISHED[name](), torch.float16, None).total / 2**30
    assert round(in_16_bits, 1) == MODELS[name].gpu_gib


def test_visual_tokens():
    clip = CLIP_L_336
    assert (clip.image_size // clip.patch_size) ** 2 == 576
    for config in (PUBLISHED["instructblip"](), PUBLISHED["minigpt4"]()):
        assert config.num_query_tokens == 32
        assert (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1 == 257
        assert config.vision_config.num_hidden_layers == 39 and config.vision_config.hidden_size == 1408


@pytest.mark.parametrize(
    ("name", "half", "in_8bit", "in_4bit"),
    [
        ("llava-1.5", 13.2, 7.1, 4.2),
        ("llava-1.5-13b", 24.9, 13.1, 7.4),
        ("minigpt4", 16.6, 10.6, 7.7),
        ("qwen2.5-vl", 15.4, 9.4, 6.4),
    ],
)
def test_gpu_memory_of_the_weights(name, half, in_8bit, in_4bit):
    """In GiB: two bytes a parameter, four in a vision tower and Q-Former kept in float32, less where quantized."""
    family, config = get_family(name), PUBLISHED[name]()
    for quantization, expected in ((None, half), ("8bit", in_8bit), ("4bit", in_4bit)):
        needed = weight_bytes_of(family, config, torch.float16, quantization).total / 2**30
        assert needed == pytest.approx(expected, abs=0.1), quantization
    in_float32 = weight_bytes_of(family, config, torch.float32, None).total / 2**30
    assert in_float32 == pytest.approx(MODELS[name].billions * 3.725, rel=0.01)


def test_a_gpu_too_small_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * 2**30, 11 * 2**30))

    def check(quantization):
        needed = weight_bytes_of(get_family("llava-1.5"), PUBLISHED["llava-1.5"](), torch.float16, quantization)
        check_memory("m", torch.device("cuda", 0), needed)

    with pytest.raises(
        RequestError, match=r"about 14 GiB .* in float16, and cuda:0 has 7 of its 11 GiB free; add --load"
    ):
        check(None)
    with pytest.raises(RequestError, match=r"about 8 GiB .* in float16, 8bit, .*take --load-in-4bit instead"):
        check("8bit")
    check("4bit")


def test_a_gpu_too_small_is_refused_before_weights_are_read(monkeypatch, checkpoint, capsys):
    folder = checkpoint("llava-1.5")
    capsys.readouterr()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**29, 2**33))
    monkeypatch.setattr(loading, "load_weights", lambda *arguments: pytest.fail("weights were read"))
    with pytest.raises(SystemExit) as ended:
        main(["models", "check", str(folder)])
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and len(said.splitlines()) == 1
    assert "needs about 1 GiB of GPU memory" in said and "has 0 of its 8 GiB free; add --load-in-4bit" in said
