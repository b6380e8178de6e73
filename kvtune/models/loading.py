"""From a short name, a folder or a Hub id to a loaded model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BitsAndBytesConfig, GenerationConfig
from transformers.generation import GenerationMixin
from transformers.utils import logging as transformers_logging

from kvtune.device_errors import device_failures_told, is_out_of_memory
from kvtune.errors import RequestError
from kvtune.hf import beside_decoder, conversion_failure
from kvtune.models.checkpoint import description, family_of_config, locate, read_config
from kvtune.models.devices import resolve_devices
from kvtune.models.family import Family, VisionLanguageModel
from kvtune.models.hub import fetch_weights, missing_weights
from kvtune.models.misfit import check_small_files, in_a_line
from kvtune.models.options import check_dtype, quantization_of
from kvtune.models.quantized import bytes_as_stored, check_not_twice, leave_what_is_left, stored_quantization
from kvtune.models.spread import spread
from kvtune.models.weight_memory import check_memory, smaller, spans_for, weight_bytes_of
from kvtune.text import quoted

log = logging.getLogger(__name__)


@device_failures_told()
def load_model(
    name: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
) -> VisionLanguageModel:
    """Load a vision-language model of a supported family, ready for greedy captions.

    Parameters
    ----------
    name
        A short name (``demo``, ``llava-1.5``), a local folder, or a Hub id. A short name is looked for under
        ``$KVTUNE_MODELS`` first.
    device
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``; several GPUs with commas between have the
        layers of the decoder divided among them.
    dtype
        ``auto`` (on a GPU what the family's evaluations run, as a rule the checkpoint's; float32 on a CPU), or one of
        :data:`kvtune.models.options.DTYPES`; quantized with ``-4bit`` or ``-8bit`` after it, as
        :attr:`VisionLanguageModel.dtype_name` gives it.
    revision
        Branch, tag or commit of Hub weights. Everything is loaded at the one commit that it stands for.
    load_in_4bit, load_in_8bit
        Quantize the language model's weights with bitsandbytes (NF4, or LLM.int8()); the vision tower stays as it is.

    Raises
    ------
    RequestError
        If there is no such model, its architecture is not supported, files are missing or do not fit each other, the
        Hub cannot be reached, the device is not there, cannot be used or its memory is too small.
    LostDeviceError
        If the device fails.
    """
    targets = resolve_devices(device)
    dtype, quantization = quantization_of(dtype, load_in_4bit, load_in_8bit)
    family, source, name = locate(str(name))
    folder, commit = description(source, revision)
    family = family_of_config(family, read_config(folder, source), source)
    if commit is not None:
        fetch_weights(source, folder)
    if (missing := missing_weights(folder)) is not None:
        raise RequestError(f"{source}: {missing}; copy or download it again")
    check_small_files(folder)
    try:
        with _quiet():
            with in_a_line(f"cannot load {source} as {family.title}", folder=folder):
                hf_model, processor = _load(family, folder, source, targets, dtype, quantization)
            vlm = VisionLanguageModel(family, hf_model, processor, name, source, commit, quantization)
            make_ready(vlm)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise RequestError(f"{source} does not fit into {device}'s memory; {smaller(quantization)}") from error
    return vlm


def make_ready(vlm: VisionLanguageModel) -> None:
    """Set a model to greedy decoding, and see on one picture whether its parts fit, and quantized layers can be run.

    Raises
    ------
    RequestError
        If they do not or cannot, or its decoder is handed what is not known.
    """
    _decode_greedily(vlm.hf_model, vlm.tokenizer, vlm.model_id)
    say_if_slow(vlm.dtype, vlm.device)
    # All of that shows on any picture, before anything long starts.
    picture = Image.new("RGB", (64, 64), "gray")
    with torch.inference_mode():
        vlm.family.decoder_inputs(vlm, [picture])
        if vlm.is_quantized:  # by whose kernels, which may want other packages or another GPU
            with in_a_line(f"the quantized layers of {vlm.name} cannot be run", on_device=True):
                vlm.hf_model.generate(**vlm.prepare([picture]), max_new_tokens=2, eos_token_id=None)


def resolve_dtype(
    dtype: str, device: torch.device, config: Any, evaluation_dtype: torch.dtype | None = None
) -> torch.dtype:
    """The type that ``--dtype`` names; ``auto`` is the evaluations' or the checkpoint's on a GPU, float32 on a CPU."""
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        stored = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
        return evaluation_dtype or stored or torch.float32
    check_dtype(dtype)
    wanted: torch.dtype = getattr(torch, dtype)
    return wanted


def say_if_slow(dtype: torch.dtype, device: torch.device) -> None:
    """Tell the log where a device only emulates a type."""
    if dtype == torch.bfloat16 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        log.info("%s has no units for bfloat16; --dtype float16 is faster, if the model's numbers fit into it", device)


def _load(
    family: Family,
    folder: Path,
    source: str,
    targets: Sequence[torch.device],
    dtype: str,
    quantization: str | None,
) -> tuple[Any, Any]:
    """The model on its devices, and its processor."""
    model_class, target = family.model_class(), targets[0]
    config = model_class.config_class.from_pretrained(folder)
    wanted = resolve_dtype(dtype, target, config, family.evaluation_dtype)
    device_map: dict[str, torch.device] = {"": target}
    spans: list[range] | None = None
    check_not_twice(source, config, quantization)
    stored = stored_quantization(config)
    if target.type == "cuda" or len(targets) > 1:
        in_files = bytes_as_stored(folder, config, target)
        needed = weight_bytes_of(family, config, wanted, stored or quantization, in_files)
        if len(targets) == 1:
            check_memory(source, target, needed)
        else:
            spans = spans_for(source, targets, needed)
            for device, span in zip(targets, spans, strict=True):
                device_map |= {f"{needed.decoder_layers}.{layer}": device for layer in span}
    processor = family.load_processor(folder, config)
    settings: dict[str, Any] = {"dtype": wanted}
    if stored is not None:
        leave_what_is_left(model_class, config)
        settings["config"] = config
    if wanted == torch.float64:  # which the grouped products of experts do not take
        settings["experts_implementation"] = "eager"
    if quantization is not None and stored is None:
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=quantization == "4bit",
            load_in_8bit=quantization == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=wanted,
            llm_int8_skip_modules=_not_quantized(model_class, config),
        )
    # Straight to the GPU where accelerate is installed, else through the computer's own memory.
    if quantization is not None or (target.type != "cpu" and find_spec("accelerate")):
        settings["device_map"] = device_map
    hf_model = load_weights(family, model_class, folder, source, settings)
    if "device_map" in settings:
        _remove_hooks(hf_model)
    if spans is not None:
        spread(hf_model, targets, spans)
    elif "device_map" not in settings:
        hf_model.to(target)
    return hf_model, processor


def _remove_hooks(hf_model: Any) -> None:
    """Take accelerate's hooks off, which copy every list that a layer is given, and with it what is collected there.

    On one device too: many versions of it have them on models in 8 bits, and on those of HQQ.
    """
    from accelerate.hooks import remove_hook_from_submodules

    remove_hook_from_submodules(hf_model)
    for module in hf_model.modules():
        if getattr(vars(module).get("forward"), "__func__", None) is type(module).forward:
            del module.forward  # left there, as if it were another than the class's


def _not_quantized(model_class: Any, config: Any) -> list[str]:
    """Modules that stay in full precision in a 4-bit or 8-bit model: everything but the language model."""
    with torch.device("meta"):
        return list(beside_decoder(model_class(config)))


def load_weights(family: Family, model_class: Any, folder: Path, source: str, settings: dict[str, Any]) -> Any:
    """The model with every one of its weights from the checkpoint, none left as initialised."""
    try:
        hf_model, info = model_class.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True, **settings
        )
    except RuntimeError as error:
        raise conversion_failure(error) or error from None
    problems = [f"{name} is missing" for name in sorted(info["missing_keys"])]
    problems += [
        f"{name} has shape {list(stored)}, its configuration says {list(needed)}"
        for name, stored, needed in sorted(info["mismatched_keys"])
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise RequestError(f"{source} is not a whole {family.title} checkpoint: {problems[0]}{more}")
    return hf_model


def _decode_greedily(hf_model: Any, tokenizer: Any, source: str) -> None:
    """Set a model to plain greedy decoding with the checkpoint's end-of-text tokens.

    Checkpoints come with sampling, penalties and length limits of their own; CHAIR is measured without them.
    """
    stored = hf_model.generation_config
    eos = stored.eos_token_id if stored.eos_token_id is not None else tokenizer.eos_token_id
    if tokenizer.eos_token_id is None and tokenizer.pad_token_id is None:
        raise RequestError(
            f"the tokenizer of {source} names no end of text; copy or download its tokenizer_config.json again"
        )
    ends = [] if eos is None else eos if isinstance(eos, list) else [eos]
    vocabulary = hf_model.get_output_embeddings().weight.shape[0]
    if not ends or not all(type(end) is int for end in ends) or not any(0 <= end < vocabulary for end in ends):
        raise RequestError(
            f"{source} says that texts end with {quoted(eos)}, which is none of its {vocabulary} tokens; set "
            "eos_token_id in its generation_config.json"
        )
    # Older Llamas say -1, which no embedding has.
    pads = (stored.pad_token_id, tokenizer.pad_token_id, *ends)
    pad = next(pad for pad in pads if type(pad) is int and 0 <= pad < vocabulary)
    greedy = GenerationConfig(
        bos_token_id=stored.bos_token_id, eos_token_id=eos, pad_token_id=pad, do_sample=False, num_beams=1
    )
    hf_model.eval()
    # A language model within the model has a generation config of its own, and InstructBLIP's generate() reads that.
    for module in hf_model.modules():
        if isinstance(module, GenerationMixin):
            module.generation_config = greedy


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of transformers' own, its progress bars only on a terminal, and nothing of others' on stdout."""
    level = transformers_logging.get_verbosity()
    # That LLM.int8() takes float16 is said anew for every product of matrices, some 200 times a step.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        with redirect_stdout(sys.stderr):  # GPTQModel tells there what it is, where results are one JSON document
            yield
    finally:
        transformers_logging.set_verbosity(level)
