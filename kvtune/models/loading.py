"""From a short name, a folder or a Hub id to a loaded model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from kvtune.errors import RequestError
from kvtune.models.base import Family, VisionLanguageModel
from kvtune.models.registry import families, family_of, get_family, model_names

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def models_folder() -> Path:
    """Where converted and copied models are looked for: ``$KVTUNE_MODELS``, else ``~/.cache/kvtune/models``."""
    return Path(os.environ.get("KVTUNE_MODELS") or Path.home() / ".cache" / "kvtune" / "models").expanduser()


def load_model(
    name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> VisionLanguageModel:
    """Load a vision-language model of a supported family, ready for greedy captions.

    Parameters
    ----------
    name
        A short name (``demo``, ``llava-1.5``), a local folder, or a Hub id. A short name is looked for under
        ``$KVTUNE_MODELS`` first.
    device
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``.
    dtype
        ``auto`` (the checkpoint's on a GPU, float32 on a CPU), or a name in ``DTYPES``.
    revision
        Branch, tag or commit of Hub weights.

    Raises
    ------
    RequestError
        If there is no such model, its architecture is not supported, files are missing, or the device is not there.
    """
    target = resolve_device(device)
    family, source, name = _locate(str(name))
    config = _read_config(source, revision)
    if family is None:
        family = family_of(config.model_type)
        if family is None:
            supported = ", ".join(sorted(kind for each in families() for kind in each.model_types))
            raise RequestError(f"{source} is a {config.model_type!r} model; supported are {supported}")
    settings: dict[str, Any] = {"dtype": resolve_dtype(dtype, target, config), "revision": revision}
    if target.type != "cpu":
        settings["device_map"] = {"": target}
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        hf_model, processor = family.load(source, **settings)
    except (OSError, ValueError, RuntimeError, KeyError, json.JSONDecodeError) as error:
        raise RequestError(f"cannot load {source} as {family.name}: {error}") from error
    finally:
        transformers_logging.set_verbosity(level)
    hf_model.eval()
    hf_model.generation_config = _greedy(hf_model, processor)
    is_local = Path(source).is_dir()
    return VisionLanguageModel(
        family=family,
        hf_model=hf_model,
        processor=processor,
        name=name,
        model_id=str(source),
        revision=None if is_local else getattr(hf_model.config, "_commit_hash", None) or revision,
    )


def resolve_device(device: str) -> torch.device:
    """The device that ``--device`` names; RequestError if it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        raise RequestError(f"unknown device {device!r}; write auto, cpu, cuda or cuda:N") from None
    if target.type == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"--device {device}: PyTorch sees no CUDA GPU; use --device cpu, or see kvtune doctor")
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"--device {device}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return target


def resolve_dtype(dtype: str, device: torch.device, config: Any) -> torch.dtype:
    """The type that ``--dtype`` names; ``auto`` is the checkpoint's on a GPU and float32 on a CPU."""
    if dtype == "auto":
        stored = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
        return torch.float32 if device.type == "cpu" or stored is None else stored
    if dtype not in DTYPES:
        raise RequestError(f"unknown dtype {dtype!r}; write auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _locate(name: str) -> tuple[Family | None, str, str]:
    """Family (None where the configuration has to say), where the weights are, and what to call the model."""
    if name in model_names():
        family = get_family(name)
        if name == "demo":
            from kvtune.demo import demo_model_path

            return family, str(demo_model_path()), name
        local = models_folder() / name
        return family, str(local) if local.is_dir() else family.hub_ids[name], name
    if Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
        return None, str(folder), folder.name
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise RequestError(f"unknown model {name!r}; there is {', '.join(model_names())}, or give a folder or a Hub id")
    return None, name, name.rsplit("/", 1)[-1]


def _read_config(source: str, revision: str | None) -> Any:
    try:
        return AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        if Path(source).is_dir():
            raise RequestError(f"{source} holds no readable model configuration: {error}") from error
        raise RequestError(
            f"cannot reach {source} on the Hub and it is not in the local cache: {error}; download it once with "
            f"`hf download {source}`, or put the weights in a folder and give its path"
        ) from error


def _greedy(hf_model: Any, processor: Any) -> GenerationConfig:
    """Plain greedy decoding with the checkpoint's end-of-text tokens.

    Checkpoints come with sampling, penalties and length limits of their own; CHAIR is measured without them.
    """
    stored, tokenizer = hf_model.generation_config, processor.tokenizer
    eos = stored.eos_token_id if stored.eos_token_id is not None else tokenizer.eos_token_id
    pad = stored.pad_token_id if stored.pad_token_id is not None else tokenizer.pad_token_id
    if pad is None:
        pad = eos[0] if isinstance(eos, list) else eos
    return GenerationConfig(
        bos_token_id=stored.bos_token_id, eos_token_id=eos, pad_token_id=pad, do_sample=False, num_beams=1
    )
