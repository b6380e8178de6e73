"""The engine's bench on a tiny model: it counts what it says it counts."""

import torch
from small_models import small_llava
from small_vlms import random_images, small_vlm
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from kvtune import KVSmooth
from kvtune.captioning.bench import bench_engine
from kvtune.models import random_weights

METHODS = [KVSmooth(0.1 * n, 5, 0.3, 0, 3) for n in range(1, 5)]


def test_arms_count_captions_and_useful_tokens():
    vlm = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))
    lengths = [[5 + image + trial for trial in range(4)] for image in range(4)]
    result = bench_engine(
        vlm,
        random_images(4),
        METHODS,
        max_new_tokens=30,
        lengths=lambda image, trial: lengths[image][trial],
        repeats=1,
        single=2,
        batch_sizes=(2, 4),
        trials=(2, 4),
    )
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert list(arms) == ["a0", "a", "b", "c", "d", "e2", "e4"]
    assert [arms[name]["captions"] for name in arms] == [2, 2, 4, 4, 4, 8, 16]
    one_each = sum(lengths[image][0] for image in range(4))
    assert arms["a0"]["tokens"] == arms["a"]["tokens"] == lengths[0][0] + lengths[1][0]
    assert arms["b"]["tokens"] == arms["c"]["tokens"] == arms["d"]["tokens"] == one_each
    assert arms["e4"]["tokens"] == sum(map(sum, lengths))
    assert result["noise"] == {"captions": 4, "changed": 0}
    assert vlm.eos_token_ids == [2, 9, 14, 31, 40]  # as before the bench


def test_random_weights_make_a_model_whose_captions_have_the_forced_lengths(monkeypatch):
    def tiny() -> LlavaConfig:
        return LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=16,
                patch_size=4,
            ),
            text_config=LlamaConfig(
                vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4
            ),
            image_token_index=5,
            image_seq_length=16,
        )

    monkeypatch.setitem(random_weights.CONFIGS, "tiny", tiny)
    vlm = random_weights.random_model("tiny", torch.device("cpu"), torch.float32)
    result = bench_engine(
        vlm,
        random_images(2),
        METHODS,
        lengths=lambda image, trial: 7,
        repeats=1,
        single=1,
        batch_sizes=(2,),
        trials=(2,),
    )
    assert [arm["tokens"] for arm in result["arms"]] == [7, 7, 14, 14, 14, 28]


def test_published_configurations_have_the_published_sizes():
    sizes = {name: make().text_config for name, make in random_weights.CONFIGS.items()}
    assert (sizes["llava-1.5"].num_hidden_layers, sizes["llava-1.5"].hidden_size) == (32, 4096)
    assert (sizes["llava-1.5-13b"].num_hidden_layers, sizes["llava-1.5-13b"].hidden_size) == (40, 5120)
    with torch.device("meta"):
        from transformers import LlavaForConditionalGeneration

        parameters = sum(
            p.numel() for p in LlavaForConditionalGeneration(random_weights.CONFIGS["llava-1.5"]()).parameters()
        )
    assert 7.05e9 < parameters < 7.07e9
