"""MiniGPT-4's published files, scaled down: random tensors under the original names, and what they compute.

The computation is written from the published models' structure, with plain tensor operations on the original names.
"""

import json
import math
from pathlib import Path

import torch
from checkpoints import text_settings
from tokenizers_made_here import llama_tokenizer
from torch.nn import functional
from transformers import Blip2QFormerConfig, Blip2VisionConfig, LlamaConfig, LlamaForCausalLM

WIDTH, PATCH, SIDE, BLOCKS, HEADS, MLP = 16, 7, 28, 3, 2, 24
QUERIES, Q_WIDTH, Q_LAYERS, Q_HEADS, Q_MLP = 32, 12, 4, 3, 20
VISION = Blip2VisionConfig(
    hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, image_size=SIDE,
    patch_size=PATCH,
)  # fmt: skip
QFORMER = Blip2QFormerConfig(
    hidden_size=Q_WIDTH, num_hidden_layers=Q_LAYERS, num_attention_heads=Q_HEADS, intermediate_size=Q_MLP,
    encoder_hidden_size=WIDTH,
)  # fmt: skip


def eva_tensors(random):
    """``eva_vit_g.pth``: a flat dictionary, one block more than LAVIS uses, and the head of EVA-CLIP."""
    tensors = {
        "cls_token": random(1, 1, WIDTH),
        "pos_embed": random(1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        "patch_embed.proj.weight": random(WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": random(WIDTH),
        "norm.weight": random(WIDTH),
        "norm.bias": random(WIDTH),
        "head.weight": random(8, WIDTH),
        "head.bias": random(8),
    }
    for block in range(BLOCKS + 1):
        start = f"blocks.{block}."
        tensors |= {start + f"norm{i}.weight": 1 + random(WIDTH) for i in (1, 2)}
        tensors |= {start + f"norm{i}.bias": random(WIDTH) for i in (1, 2)}
        tensors |= {start + f"attn.{letter}_bias": random(WIDTH) for letter in "qv"}
        tensors[start + "attn.qkv.weight"] = random(3 * WIDTH, WIDTH)
        tensors |= linear(random, start + "attn.proj", WIDTH, WIDTH)
        tensors |= linear(random, start + "mlp.fc1", WIDTH, MLP) | linear(random, start + "mlp.fc2", MLP, WIDTH)
    return tensors


def qformer_tensors(random):
    """``blip2_pretrained_flant5xxl.pth``: under "model"; no text side, a projection to T5 that MiniGPT-4 leaves."""
    tensors = {
        "query_tokens": random(1, QUERIES, Q_WIDTH),
        "ln_vision.weight": 1 + random(WIDTH),
        "ln_vision.bias": random(WIDTH),
        "Qformer.bert.embeddings.position_ids": torch.arange(512)[None],
        **norm(random, "Qformer.bert.embeddings.LayerNorm"),
        **linear(random, "t5_proj", Q_WIDTH, 40),
    }
    for layer in range(Q_LAYERS):
        start = f"Qformer.bert.encoder.layer.{layer}."
        for kind in ("attention", "crossattention") if layer % 2 == 0 else ("attention",):
            width = WIDTH if kind == "crossattention" else Q_WIDTH
            tensors |= linear(random, start + f"{kind}.self.query", Q_WIDTH, Q_WIDTH)
            tensors |= linear(random, start + f"{kind}.self.key", width, Q_WIDTH)
            tensors |= linear(random, start + f"{kind}.self.value", width, Q_WIDTH)
            tensors |= linear(random, start + f"{kind}.output.dense", Q_WIDTH, Q_WIDTH)
            tensors |= norm(random, start + f"{kind}.output.LayerNorm")
        tensors |= linear(random, start + "intermediate_query.dense", Q_WIDTH, Q_MLP)
        tensors |= linear(random, start + "output_query.dense", Q_MLP, Q_WIDTH)
        tensors |= norm(random, start + "output_query.LayerNorm")
    return tensors


def linear(random, name, inputs, outputs):
    return {f"{name}.weight": random(outputs, inputs), f"{name}.bias": random(outputs)}


def norm(random, name):
    return {f"{name}.weight": 1 + random(Q_WIDTH), f"{name}.bias": random(Q_WIDTH)}


def write_files(folder: Path, seed: int = 0, vision_dtype: torch.dtype = torch.float16) -> dict[str, Path]:
    """All four parts, as the options of ``kvtune models convert minigpt4``.

    Vicuna is as the copies of v0 are: a vocabulary of one more than its tokenizer's, wrong special ids, empty
    special tokens, two shards of PyTorch's format, the rotary frequencies that old versions saved.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator) * 0.3

    vicuna = folder / "vicuna-7b"
    vicuna.mkdir(parents=True)
    tokenizer = llama_tokenizer()
    tokenizer.save_pretrained(vicuna)
    empty = {"bos_token": "", "eos_token": "", "unk_token": "", "tokenizer_class": "LLaMATokenizer"}
    (vicuna / "tokenizer_config.json").write_text(json.dumps(empty))
    (vicuna / "special_tokens_map.json").write_text("{}")
    config = LlamaConfig(**text_settings(len(tokenizer) + 1, 4))
    state = {name: random(*tensor.shape).half() for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    state = {name: 1 + tensor if "norm" in name else tensor for name, tensor in state.items()}
    for layer in range(config.num_hidden_layers):
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    names = sorted(state)
    files = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        torch.save({name: state[name] for name in part}, vicuna / file)
    index = {"metadata": {}, "weight_map": {name: files[number % 2] for number, name in enumerate(names)}}
    (vicuna / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    stored = config.to_dict() | {"torch_dtype": "float16", "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}
    stored |= {"_name_or_path": "decapoda-research/llama-7b-hf", "max_sequence_length": 2048, "model_type": "llama"}
    (vicuna / "config.json").write_text(json.dumps(stored))

    eva = {name: tensor.to(vision_dtype) for name, tensor in eva_tensors(random).items()}
    torch.save(eva, folder / "eva_vit_g.pth")
    torch.save({"model": qformer_tensors(random)}, folder / "blip2_pretrained_flant5xxl.pth")
    projection = linear(random, "llama_proj", Q_WIDTH, config.hidden_size)
    torch.save({"model": projection, "epoch": 3, "scaler": {}}, folder / "prerained_minigpt4_7b.pth")
    return {
        "vicuna": vicuna,
        "eva": folder / "eva_vit_g.pth",
        "qformer": folder / "blip2_pretrained_flant5xxl.pth",
        "checkpoint": folder / "prerained_minigpt4_7b.pth",
    }


def read_files(files: dict[str, Path]) -> dict[str, torch.Tensor]:
    """Every original tensor by its original name, Vicuna's with "vicuna." in front, in float64."""
    tensors = dict(torch.load(files["eva"]))
    tensors |= torch.load(files["qformer"])["model"] | torch.load(files["checkpoint"])["model"]
    for shard in files["vicuna"].glob("*.bin"):
        tensors |= {f"vicuna.{name}": tensor for name, tensor in torch.load(shard).items()}
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def image_features(tensors, pixels):
    """EVA ViT-g with its last block left out, then ``ln_vision``: [images, 1 + patches, width]."""
    grid = functional.conv2d(pixels, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=PATCH)
    x = torch.cat([tensors["cls_token"].expand(len(pixels), -1, -1), grid.flatten(2).transpose(1, 2)], dim=1)
    x = x + tensors["pos_embed"]
    for block in range(BLOCKS):
        part = Part(tensors, f"blocks.{block}.")
        y = part.norm("norm1", x, 1e-6)
        bias = torch.cat([part["attn.q_bias"], torch.zeros(WIDTH, dtype=torch.float64), part["attn.v_bias"]])
        query, key, value = (y @ part["attn.qkv.weight"].T + bias).chunk(3, dim=-1)
        x = x + part.linear("attn.proj", attention(query, key, value, HEADS))
        y = part.norm("norm2", x, 1e-6)
        x = x + part.linear("mlp.fc2", gelu(part.linear("mlp.fc1", y)))
    return Part(tensors, "").norm("ln_vision", x, 1e-5)


def query_output(tensors, image):
    """The Q-Former without text: [images, queries, width]."""
    bert = Part(tensors, "Qformer.bert.")
    x = bert.norm("embeddings.LayerNorm", tensors["query_tokens"].expand(len(image), -1, -1), 1e-12)
    for layer in range(Q_LAYERS):
        part = Part(tensors, f"Qformer.bert.encoder.layer.{layer}.")
        x = attend(part, "attention", x, x)
        if layer % 2 == 0:
            x = attend(part, "crossattention", x, image)
        y = part.linear("output_query.dense", gelu(part.linear("intermediate_query.dense", x)))
        x = part.norm("output_query.LayerNorm", x + y, 1e-12)
    return x


def attend(part, kind, x, other):
    query = part.linear(f"{kind}.self.query", x)
    key, value = part.linear(f"{kind}.self.key", other), part.linear(f"{kind}.self.value", other)
    y = part.linear(f"{kind}.output.dense", attention(query, key, value, Q_HEADS))
    return part.norm(f"{kind}.output.LayerNorm", x + y, 1e-12)


def attention(query, key, value, heads):
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value)]
    scores = split[0] @ split[1].transpose(2, 3) / math.sqrt(split[0].shape[-1])
    return (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class Part:
    """The tensors whose names start with ``start``."""

    def __init__(self, tensors, start):
        self.tensors, self.start = tensors, start

    def __getitem__(self, name):
        return self.tensors[self.start + name]

    def linear(self, name, x):
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, name, x, eps):
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return centred / spread * self[f"{name}.weight"] + self[f"{name}.bias"]
