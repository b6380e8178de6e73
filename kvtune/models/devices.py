"""Devices by the names that ``--device`` takes."""

from __future__ import annotations

import os
import re

import torch

from kvtune.errors import RequestError
from kvtune.text import number_of, quoted


def resolve_device(device: str) -> torch.device:
    """The device that ``--device`` names; RequestError if it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch("cpu|cuda(:[0-9]{1,3})?", device):
        raise RequestError(f"unknown device {quoted(device)}; write auto, cpu, cuda or cuda:N")
    target = torch.device(device)
    if target.type == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"--device {device}: PyTorch sees no CUDA GPU; use --device cpu, or see kvtune doctor")
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
        those = f" of CUDA_VISIBLE_DEVICES={visible}" if visible else ""
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
