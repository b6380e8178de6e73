"""Text decoders of many kinds around one vision tower: the engine writes what generate() writes, or refuses in a line.

All of transformers' that can be built so small were tried once, 113 of 196; here are those that taught something.
"""

import pytest
import torch
from graph_like import like_a_gpu
from small_models import small_llava
from small_vlms import random_images, reference_tokens, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.errors import RequestError
from kvtune.methods import CLVS, PAI

MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
LATENT = {
    **MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "kv_heads": 4,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12,
}  # fmt: skip
METHODS = (None, KVSmooth(0.6, 5, 0.4, 0, 3), PAI(0.5, 0, 3), CLVS(0.5, 0.6, 0.5))
IMAGES = random_images(2)


def vlm_of(kind, **settings):
    return small_vlm(small_llava(0, **{"kv_heads": 2, "text": kind, **settings}), eos=())


def captions(vlm, methods):
    requests = [CaptionRequest(n, image, method, (n, method)) for n, image in enumerate(IMAGES) for method in methods]
    return {caption.tag: caption.token_ids for caption in Captioner(vlm, max_new_tokens=12, lanes=3).run(requests)}


@pytest.mark.parametrize(
    ("kind", "settings", "clvs"),
    [
        ("qwen3_moe", MOE, True),
        ("mixtral", MOE, True),
        ("llama4_text", MOE, False),
        ("phi", {}, True),  # turns a part of each head
        ("glm4", {"head_dim": 8}, False),  # and by pairs of neighbours
        ("ministral3", {"head_dim": 8}, True),  # scales queries by their position
        ("smollm3", {}, True),  # has layers without positions
        ("cohere", {}, False),
        ("lfm2", {}, True),
    ],
)
def test_is_right(kind, settings, clvs):
    check(vlm_of(kind, **settings), METHODS[: 4 if clvs else 3])
    if not clvs:
        with pytest.raises(RequestError, match="clvs does not know how the model turns keys by their position"):
            captions(vlm_of(kind, **settings), METHODS[3:])


def test_experts_can_be_replayed(monkeypatch):
    made = like_a_gpu(monkeypatch)
    check(vlm_of("qwen3_moe", **MOE), METHODS[:2])
    assert made[0].replays > 15


def check(vlm, methods):
    for (number, method), ids in captions(vlm, methods).items():
        assert ids == reference_tokens(vlm, IMAGES[number], method, 12)[0], method


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("deepseek_v3", LATENT, "its layers do not all keep keys and values of every token, of one shape"),
        ("gpt_oss", MOE, "its attention takes s_aux"),
        ("persimmon", {}, "its layers do not all keep keys and values"),
        (
            "gemma4_text",
            {"head_dim": 8, "vocab_size_per_layer_input": 60, "hidden_size_per_layer_input": 8},
            "gives no one size for the attention of all layers",
        ),
        ("qwen3_next", MOE, "no plain list of layers"),
        ("doge", {}, "its attention adds to scores what each head makes of the values"),
    ],
)
def test_is_refused_in_a_line(kind, settings, message):
    with pytest.raises(RequestError, match=message) as caught:
        captions(vlm_of(kind, **settings), [None])
    assert "\n" not in str(caught.value)


def test_experts_in_float64(tmp_path):
    """In which transformers' products of several experts cannot be had."""
    from newer_checkpoints import save_internvl

    from kvtune.models import load_model

    folder = save_internvl(tmp_path, text="qwen3_moe")
    vlm = load_model(folder, device="cpu", dtype="float64")
    assert vlm.dtype == torch.float64
    for (number, method), ids in captions(vlm, METHODS[:3]).items():
        assert len(ids) == 12 or ids[-1] in vlm.eos_token_ids, (number, method)
