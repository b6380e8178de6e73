"""Tensors larger than memory, of which only what is written takes any."""

import mmap

import torch


def sparse(numel, dtype):
    """[numel], 0 wherever nothing has been written."""
    size = numel * torch.empty(0, dtype=dtype).element_size()
    not_reserved = getattr(mmap, "MAP_NORESERVE", 0x4000)
    return torch.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | not_reserved), dtype=dtype)


def spread_out(tensors, strides):
    """Copies of tensors of one shape, whose first axes have these ``strides``, in elements."""
    shape = tensors[0].shape
    inner = [tensors[0][(0,) * len(strides)].numel(), *tensors[0].stride()[len(strides) :]]
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
    memory = sparse(reach + len(tensors) * inner[0], tensors[0].dtype)
    views = [memory.as_strided(shape, (*strides, *inner[1:]), number * inner[0]) for number in range(len(tensors))]
    for view, tensor in zip(views, tensors, strict=True):
        view.copy_(tensor)
    return views
