"""Devices by the names that ``--device`` takes."""

from __future__ import annotations

import logging
import os
import re
import shutil

import torch

from kvtune.errors import RequestError
from kvtune.text import number_of, quoted

_VISIBLE = "CUDA_VISIBLE_DEVICES"

log = logging.getLogger(__name__)


def resolve_device(device: str) -> torch.device:
    """The device that ``--device`` names; RequestError if it is not there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if _VISIBLE not in os.environ and shutil.which("nvidia-smi"):
            log.warning(
                "PyTorch sees no GPU, though there is an NVIDIA driver: the CPU is used; kvtune doctor says what to do"
            )
        return torch.device("cpu")
    if not re.fullmatch("cpu|cuda(:[0-9]{1,3})?", device):
        raise RequestError(f"unknown device {quoted(device)}; write auto, cpu, cuda or cuda:N")
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        visible = os.environ.get(_VISIBLE)
        hidden = f" with {_VISIBLE}={visible}" if visible is not None else ""
        raise RequestError(
            f"--device {device}: PyTorch sees no CUDA GPU{hidden}; use --device cpu, or see kvtune doctor"
        )
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        count, visible = torch.cuda.device_count(), os.environ.get(_VISIBLE)
        those = f" of {_VISIBLE}={visible}" if visible else ""
        raise RequestError(
            f"--device {device}: there {'is' if count == 1 else 'are'} {number_of(count, 'GPU')}{those}, counted from 0"
        )
    return target


def resolve_devices(device: str) -> list[torch.device]:
    """The device that is named, or several GPUs with commas between; RequestError if one is not there."""
    named = device.split(",")
    targets = [resolve_device(one) for one in named]
    if len(targets) == 1:
        return targets
    if any(target.type != "cuda" or one == "auto" for one, target in zip(named, targets, strict=True)):
        raise RequestError(f"a model is spread over GPUs, not over {device}; name GPUs, as cuda:0,cuda:1")
    targets = [torch.device("cuda", target.index or 0) for target in targets]
    if len(set(targets)) < len(targets):
        raise RequestError(f"{device} names a device twice; name each once")
    return targets
