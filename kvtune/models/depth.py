"""How far away what a picture shows is: from a depth estimator, a folder of maps, or the demo's scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kvtune.array_files import read_arrays
from kvtune.errors import RequestError
from kvtune.files import check_path

SCENES = "scenes"
"""The source of the demo's own depth."""

DepthMap = Callable[[Image.Image, Path | None], np.ndarray]
"""Gives the map of a picture, which comes from the file if there is one: [height, width] of the picture, of any unit in
which more is farther, or nearer."""


def depth_maps(source: str, device: torch.device) -> DepthMap:
    """Where depth is taken from.

    Parameters
    ----------
    source
        ``"scenes"``; a folder of maps, ``NAME.npy`` or ``NAME.png`` of each image's name and size; or a depth estimator
        of transformers, a folder or Hub id such as ``depth-anything/Depth-Anything-V2-Small-hf``.

    Raises
    ------
    RequestError
        If there is no such source.
    """
    if source == SCENES:
        from kvtune.demo.scene_depth import scene_depth

        return lambda image, path: scene_depth(path)
    folder = check_path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        return _Folder(folder)
    return _Estimator(source, device)


class _Folder:
    """Maps in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, image: Image.Image, path: Path | None) -> np.ndarray:
        if path is None:
            raise RequestError("a folder of depth maps goes by the images' file names, but this image has none")
        for file in (self.folder / f"{path.stem}{ending}" for ending in (".npy", ".png")):
            if file.is_file():
                found = self._read(file)
                if found.shape != (image.height, image.width):
                    size = " x ".join(map(str, found.shape[::-1]))
                    raise RequestError(
                        f"depth map {file} is {size}, but the image {image.width} x {image.height}: make it that size"
                    )
                return found
        raise RequestError(
            f"there is no depth map {path.stem}.npy or .png in {self.folder}; make one, or take depth none"
        )

    @staticmethod
    def _read(file: Path) -> np.ndarray:
        try:
            found = read_arrays(file)[""] if file.suffix == ".npy" else np.asarray(Image.open(file))
        except (OSError, ValueError, LookupError) as error:
            raise RequestError(f"depth map {file} cannot be read: {error}") from None
        if found.ndim != 2 or not np.issubdtype(found.dtype, np.number) or not np.isfinite(found).all():
            raise RequestError(f"depth map {file} must hold one finite number a pixel, not {found.dtype} {found.shape}")
        return found.astype(np.float32)


class _Estimator:
    """A model that estimates depth."""

    def __init__(self, source: str, device: torch.device) -> None:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        try:
            self.processor: Any = AutoImageProcessor.from_pretrained(source, backend="pil")
            self.model: Any = AutoModelForDepthEstimation.from_pretrained(source).eval().to(device)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RequestError(
                f"depth estimator {source} cannot be loaded: {reason}; name a folder, or a Hub id that is there"
            ) from None
        self.device = device

    @torch.inference_mode()
    def __call__(self, image: Image.Image, path: Path | None) -> np.ndarray:
        inputs = self.processor(images=[image], return_tensors="pt").to(self.device)
        output = self.model(**inputs)
        size = [(image.height, image.width)]
        found = self.processor.post_process_depth_estimation(output, target_sizes=size)[0]["predicted_depth"]
        depth: np.ndarray = found.float().cpu().numpy()
        return depth


def depth_of_places(depth: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The mean depth of what each visual token sees, 0 to 1 between the least and the most of the picture.

    Parameters
    ----------
    depth
        [height, width].
    places
        [visual tokens, 2], the middle of each across and down, 0 to 1, row by row of one grid or of several; NaN for
        one without a place.

    Returns
    -------
    np.ndarray
        [visual tokens], NaN without a place; all 0 where the picture is of one depth.
    """
    low, high = float(depth.min()), float(depth.max())
    scaled = (depth - low) / (high - low) if high > low else np.zeros_like(depth)
    sums = np.pad(scaled.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = depth.shape
    half = _half_sizes(places)
    found = np.full(len(places), np.nan)
    for token in np.flatnonzero(~np.isnan(places).any(1)):
        begin = np.clip(np.floor((places[token] - half[token]) * (width, height) + 1e-6), 0, (width - 1, height - 1))
        end = np.clip(np.ceil((places[token] + half[token]) * (width, height) - 1e-6), begin + 1, (width, height))
        (left, top), (right, bottom) = begin.astype(int), end.astype(int)
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        found[token] = total / ((bottom - top) * (right - left))
    return found


def _half_sizes(places: np.ndarray) -> np.ndarray:
    """Half the width and height of what each token sees: half the way to the next in its line, and to the next line."""
    half = np.full_like(places, 0.5)
    token = 0
    line_of = np.full(len(places), -1)
    lines: list[tuple[int, int]] = []
    while token < len(places):
        end = token + 1
        while end < len(places) and places[end, 1] == places[token, 1] and places[end, 0] > places[end - 1, 0]:
            end += 1
        if not np.isnan(places[token]).any():
            line_of[token:end] = len(lines)
            lines.append((token, end))
            if end - token > 1:
                half[token:end, 0] = (places[token + 1, 0] - places[token, 0]) / 2
        token = end
    for number, (begin, end) in enumerate(lines):
        others = [lines[near] for near in (number - 1, number + 1) if 0 <= near < len(lines)]
        # A line of the same grid begins at the same place and has as many.
        apart = [
            abs(places[first, 1] - places[begin, 1])
            for first, last in others
            if last - first == end - begin and np.isclose(places[first, 0], places[begin, 0])
        ]
        if apart:
            half[begin:end, 1] = min(apart) / 2
    return half
