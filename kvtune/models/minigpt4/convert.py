"""From MiniGPT-4's published files to one folder that transformers loads: every tensor by name, or nothing."""

from __future__ import annotations

import dataclasses
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessorPil,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
)
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from kvtune.errors import KvtuneError, RequestError
from kvtune.files import check_writable, new_folder
from kvtune.models.checkpoint import read_config
from kvtune.models.hub import missing_weights, weight_files
from kvtune.models.minigpt4.model import MiniGpt4Config, MiniGpt4ForConditionalGeneration
from kvtune.text import quoted

VISION: Any = Blip2VisionConfig()
"""EVA ViT-g at 224 pixels: width 1408, 39 of its 40 blocks, 16 heads, patches of 14 (LAVIS's ``create_eva_vit_g``)."""
QFORMER: Any = Blip2QFormerConfig()
"""BERT-base with cross attention to the image in every other layer (LAVIS's ``init_Qformer``)."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was written: the folder, and how many tensors and parameters went into it."""

    folder: Path
    tensors: int
    parameters: int


def convert_minigpt4(
    vicuna: Path,
    eva: Path,
    qformer: Path,
    checkpoint: Path,
    out: Path,
    on_step: Callable[[str], None] = lambda step: None,
) -> Converted:
    """Make one Hugging Face folder of MiniGPT-4's four published parts.

    Parameters
    ----------
    vicuna
        Folder of Vicuna-7B v0 in Hugging Face's format, with its tokenizer.
    eva
        ``eva_vit_g.pth``.
    qformer
        ``blip2_pretrained_flant5xxl.pth``: Q-Former, query tokens and ``ln_vision``.
    checkpoint
        ``prerained_minigpt4_7b.pth``: the projection.
    out
        The folder to write, which must not be there yet. It appears when everything is written and checked.
    on_step
        Called with a few words as each step starts.

    Raises
    ------
    RequestError
        If a file is not there or not what it should be: a tensor missing, left over, or of the wrong shape.
    KvtuneError
        If writing fails, or what was written does not read back as it was.
    """
    if out.exists():
        raise RequestError(f"{out} is there already; remove it, or give another folder with --out")
    check_writable(out)
    on_step(f"reading Vicuna from {vicuna}")
    text_config, tokenizer = _read_vicuna(vicuna)
    config = MiniGpt4Config(vision_config=VISION, qformer_config=QFORMER, text_config=text_config)
    with torch.device("meta"):
        model = MiniGpt4ForConditionalGeneration(config)
    needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for path, rename in (
        (vicuna, _vicuna_name),
        (eva, eva_name),
        (qformer, qformer_name),
        (checkpoint, projection_name),
    ):
        on_step(f"mapping {path.name}")
        tensors |= renamed_tensors(path, rename, needed)
    if missing := sorted(needed.keys() - tensors.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RequestError(f"{_file_of(missing[0])} lacks what becomes {missing[0]}{more}; is it the right file?")
    model.load_state_dict(tensors, strict=True, assign=True)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    _write(model, tokenizer, out, tensors, on_step)
    return Converted(out, len(tensors), sum(tensor.numel() for tensor in tensors.values()))


def _read_vicuna(folder: Path) -> tuple[LlamaConfig, LlamaTokenizer]:
    """Configuration and tokenizer, both with the special tokens that Vicuna has.

    The copies of Vicuna v0 that are about inherit wrong ones from the first conversions of LLaMA (end of text 1, empty
    special tokens), so they are not taken from there.
    """
    if not (folder / "config.json").is_file():
        raise RequestError(f"--vicuna {folder} is no folder with a Hugging Face model: it has no config.json")
    stored = read_config(folder, f"--vicuna {folder}")
    if stored["model_type"] != "llama":
        raise RequestError(f"--vicuna {folder} is a {quoted(stored['model_type'])} model; Vicuna-7B v0 is a 'llama'")
    if (missing := missing_weights(folder)) is not None:
        raise RequestError(f"--vicuna {folder}: {missing}")
    if not any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        raise RequestError(f"--vicuna {folder} has no tokenizer; copy Vicuna's tokenizer.model there")
    if not (folder / "tokenizer.json").is_file():
        _need_sentencepiece(folder)
    try:
        tokenizer = LlamaTokenizer.from_pretrained(folder, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    except Exception as error:  # sentencepiece and tokenizers raise kinds of their own
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"--vicuna {folder}: its tokenizer cannot be read: {reason}; copy it again") from error
    pieces = tokenizer.vocab_size
    if tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>"]) != [0, 1, 2]:
        raise RequestError(f"--vicuna {folder}: its tokenizer is not Vicuna's, whose ids 0, 1, 2 are <unk>, <s>, </s>")
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    config: LlamaConfig = LlamaConfig.from_dict(stored | special)
    if config.vocab_size != pieces + 1:
        raise RequestError(
            f"--vicuna {folder} has a vocabulary of {config.vocab_size} for a tokenizer of {pieces}; MiniGPT-4 was "
            f"trained with Vicuna v0, which has one more ({pieces + 1}): take that (Vision-CAIR/vicuna-7b), not v1.x"
        )
    return config, tokenizer


def _need_sentencepiece(folder: Path) -> None:
    if not (is_sentencepiece_available() and is_protobuf_available()):
        raise RequestError(
            f"{folder}/tokenizer.model needs sentencepiece and protobuf to be read: pip install 'kvtune[convert]'"
        )


def renamed_tensors(
    path: Path, rename: Callable[[str], str | None], needed: dict[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """A file's tensors under the model's names; those that ``rename`` turns into None are known not to be needed."""
    found: dict[str, Tensor] = {}
    biases: dict[str, dict[str, Tensor]] = {}
    for name, tensor in stored_tensors(path):
        target = rename(name)
        if target is None:
            continue
        if match := re.fullmatch(r"(.*\.qkv\.bias)\.([qv])", target):
            biases.setdefault(match[1], {})[match[2]] = tensor
        elif target not in needed:
            raise RequestError(f"{path} has {name}, which has no place in MiniGPT-4; is it the right file?")
        else:
            found[target] = tensor
    for target, parts in biases.items():
        if parts.keys() == {"q", "v"} and target in needed:
            # EVA's keys have no bias.
            found[target] = torch.cat([parts["q"], torch.zeros_like(parts["v"]), parts["v"]])
    for target, tensor in found.items():
        if tuple(tensor.shape) != needed[target]:
            raise RequestError(
                f"{path}: what becomes {target} has shape {list(tensor.shape)}, in MiniGPT-4 it has "
                f"{list(needed[target])}; is it the right file?"
            )
    return {target: tensor.contiguous() for target, tensor in found.items()}


def stored_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a weight file, or of all weight files of a folder, read from the disk as they are used."""
    files = weight_files(path) if path.is_dir() else [path]
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, framework="pt") as stored:
                    yield from ((name, stored.get_tensor(name)) for name in stored.keys())  # noqa: SIM118
            else:
                loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
                yield from loaded.get("model", loaded).items()
        except FileNotFoundError:
            raise RequestError(f"{file} does not exist") from None
        except (OSError, RuntimeError, ValueError, AttributeError, SafetensorError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RequestError(f"{file} is not a file of PyTorch weights, or is damaged: {reason}") from error


def _vicuna_name(name: str) -> str | None:
    if name.endswith("rotary_emb.inv_freq"):  # computed, and saved by old versions of transformers
        return None
    return name if name == "lm_head.weight" else re.sub(r"^model\.", "language_model.", name)


_EVA_NAMES = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"blocks\.(\d+)\.attn\.([qv])_bias", r"encoder.layers.\1.self_attn.qkv.bias.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)


def eva_name(name: str) -> str | None:
    """LAVIS leaves out the last block, and what EVA-CLIP has after it."""
    if re.match(rf"blocks\.{VISION.num_hidden_layers}\.|(norm|fc_norm|head|lm_head)\.|mask_token$", name):
        return None
    for pattern, target in _EVA_NAMES:
        if re.match(pattern, name):
            return "vision_model." + re.sub(f"^{pattern}", target, name)
    return name


def qformer_name(name: str) -> str | None:
    """The text side of the Q-Former and the projection to Flan-T5 are not used; the tower comes from ``eva``."""
    if re.match(
        r"(t5_proj|t5_model|visual_encoder|Qformer\.cls)\."
        r"|Qformer\.bert\.embeddings\.(position_ids|word_embeddings|position_embeddings)"
        r"|Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\.",
        name,
    ):
        return None
    name = re.sub(r"^ln_vision\.", "vision_model.post_layernorm.", name)
    name = re.sub(r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.layernorm.", name)
    name = re.sub(r"^Qformer\.bert\.", "qformer.", name)
    return re.sub(r"\.(attention|crossattention)\.self\.", r".\1.attention.", name)


def projection_name(name: str) -> str:
    return re.sub(r"^llama_proj\.", "language_projection.", name)


def _file_of(target: str) -> str:
    """The file that a tensor of the model should have come from, by its option."""
    if target.startswith(("qformer.", "query_tokens", "vision_model.post_layernorm.")):
        return "--qformer"
    if target.startswith("vision_model."):
        return "--eva"
    return "--checkpoint" if target.startswith("language_projection.") else "--vicuna"


def _write(
    model: MiniGpt4ForConditionalGeneration,
    tokenizer: LlamaTokenizer,
    out: Path,
    tensors: dict[str, Tensor],
    on_step: Callable[[str], None],
) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(out.parent).free) < size:
            raise RequestError(
                f"{out.parent} has {free / 2**30:.1f} GiB free and the model takes {size / 2**30:.1f}; "
                "give a folder on another disk with --out"
            )
        with new_folder(out) as temporary:
            on_step(f"writing {size / 2**30:.1f} GiB")
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            processor = BlipImageProcessorPil(size={"height": VISION.image_size, "width": VISION.image_size})
            processor.save_pretrained(temporary)
            on_step("checking what was written")
            _check(temporary, tensors)
    except OSError as error:
        raise KvtuneError(f"cannot write {out}: {error.strerror or error}") from error


def _check(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Load the folder as it will be loaded; every tensor must be the file's, and an image must give finite numbers."""
    pair: Any = MiniGpt4ForConditionalGeneration.from_pretrained(folder, dtype="auto", output_loading_info=True)
    model, info = pair
    loaded = model.state_dict()
    wrong = [name for name, tensor in tensors.items() if not torch.equal(loaded[name], tensor.to(loaded[name].dtype))]
    wrong += [*info["missing_keys"], *info["unexpected_keys"]]
    if wrong:
        raise KvtuneError(f"{wrong[0]} did not read back as it was written; is the disk sound?")
    pixels = torch.zeros(1, 3, VISION.image_size, VISION.image_size)
    with torch.no_grad():
        features = model.eval().get_image_features(pixels)
    if not features.isfinite().all():
        raise KvtuneError("a grey image gives embeddings that are not finite; one of the files is damaged")
