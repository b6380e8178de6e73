"""The kernels at the shapes of real models: how far from float64, and how fast.

Prints a line of JSON for each kernel, shape and type, with ``ok``, whether the error is within that of its type; the
exit code is 1 if any is not: ``python -m kvtune.bench.engine.kernels --device cuda``. Before them, how long the linear
layers take that could be one product; after them, attention by kernels that are built in other ways.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kvtune.bench.engine.device import seconds_of
from kvtune.bench.engine.projections import LLAVA_7B, projections
from kvtune.bench.engine.projections import SMALL as SMALL_PROJECTIONS
from kvtune.bench.engine.subject import print_line, say_everything
from kvtune.captioning.graphs import step_graphs
from kvtune.captioning.kernels import MOST_ERROR, PLAIN, AttendTiles, Kernels, kernels_for, nobody, relative_error
from kvtune.captioning.paged_attention import LANES, Layout
from kvtune.captioning.pages import PAGE, pages_for
from kvtune.kernel_builds import why_not_built
from kvtune.models.devices import resolve_device


@dataclasses.dataclass(frozen=True)
class Shape:
    """Rows of a step and what they have cached.

    Attributes
    ----------
    rows
        Captions, :data:`LANES` of an image.
    kv_heads, share, head_dim
        Heads that keys and values have, query heads that read each, and their size.
    prompt, text
        Positions of every prompt; positions of the longest text, of which rows have from 1 to that many.
    """

    rows: int
    kv_heads: int
    share: int
    head_dim: int
    prompt: int = 626
    text: int = 110


SHAPES = [
    Shape(768, 32, 1, 128),
    Shape(336, 32, 1, 128, text=256),
    Shape(768, 4, 7, 128),
    Shape(336, 40, 1, 128),
    Shape(336, 32, 1, 80),
    Shape(336, 8, 4, 64),
]
"""LLaVA-1.5-7B with rows and texts as they are now and as first planned, Qwen2.5-VL-7B, LLaVA-1.5-13B, other sizes."""

FEW_SHAPES = [SHAPES[0], SHAPES[-1]]
"""For types that are the exception: each shape costs a second for each kernel that is built for it."""

SMALL = [Shape(5, 2, 1, 16, 40, 40), Shape(20, 1, 3, 24, 33, 70)]


@dataclasses.dataclass(frozen=True)
class Situation:
    """Random numbers in pages: the arguments of attention but for the scaling, and smoothing factors."""

    query: Tensor
    key: Tensor
    value: Tensor
    keys: Tensor
    values: Tensor
    layout: Layout
    factors: Tensor

    @classmethod
    def of(cls, shape: Shape, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Situation:
        """Every row of ``shape``, pages in a random order."""
        random = torch.Generator(device).manual_seed(seed)

        def numbers(*size: int) -> Tensor:
            return torch.randn(size, generator=random, device=device, dtype=torch.float32).to(dtype)

        rows, images = shape.rows, -(-shape.rows // LANES)
        prompt_pages, text_pages = pages_for(shape.prompt), pages_for(shape.text)
        count = images * prompt_pages + rows * text_pages
        order = torch.randperm(count, generator=random, device=device).int() + 1
        members = torch.arange(images * LANES, device=device, dtype=torch.int32)
        members[rows:] = -1
        layout = Layout(
            newest=torch.randint(1, shape.text, (rows,), generator=random, device=device, dtype=torch.int32),
            table=order[images * prompt_pages :].view(rows, text_pages),
            tiles=members.view(images, LANES),
            tile_images=torch.arange(images, device=device, dtype=torch.int32),
            tile_lengths=torch.full((images,), shape.prompt - 1, device=device, dtype=torch.int32),
            lanes_of_rows=torch.arange(rows, device=device, dtype=torch.int32),
            prompt_table=order[: images * prompt_pages].view(images, prompt_pages),
        )
        new = (rows, shape.kv_heads, shape.head_dim)
        cache = (count + 1, shape.kv_heads, PAGE, shape.head_dim)
        return cls(
            numbers(rows, shape.kv_heads, shape.share, shape.head_dim),
            numbers(*new),
            numbers(*new),
            numbers(*cache),
            numbers(*cache),
            layout,
            torch.rand(1, rows + 1, generator=random, device=device)[:, :rows],  # as of states, which have one row more
        )

    def attend(self, kernels: Kernels) -> tuple[Tensor, Tensor]:
        arguments = self.query, self.key, self.value, self.keys, self.values, self.layout
        return kernels.attend(*arguments, self.query.shape[-1] ** -0.5)

    def attend_tiles(self, attend_tiles: AttendTiles) -> Tensor:
        """The rows' attention as methods have it, of which there are none."""
        acting = nobody(self.query, self.layout)
        arguments = self.query, self.keys, self.values, self.layout, self.query.shape[-1] ** -0.5
        return attend_tiles(*arguments, 0, [acting])[0][self.layout.lanes_of_rows.long()]

    def smooth(self, kernels: Kernels) -> None:
        layout, caches = self.layout, (self.keys[None], self.values[None])
        kernels.smooth(*caches, layout.table, layout.newest, self.factors, self.factors, 0)

    def double(self) -> Situation:
        """The same in float64."""
        names = ("query", "key", "value", "keys", "values")
        return dataclasses.replace(self, **{name: getattr(self, name).double() for name in names})

    @property
    def bytes_read(self) -> int:
        """What attention reads and writes: each prompt once, each text and query once, the output."""
        layout = self.layout
        positions = int(layout.tile_lengths.sum()) + int(layout.newest.sum()) + 2 * len(layout.newest)
        return positions * 2 * self.key[0].nbytes + 2 * self.query.nbytes


def check(
    shape: Shape, dtype: torch.dtype, device: torch.device, repeats: int = 20, for_methods: bool = True
) -> list[dict[str, Any]]:
    """Attention and smoothing of one shape and type: relative errors, milliseconds and GB/s.

    ``for_methods`` takes attention whose scores methods may change, too.
    """
    kernels = kernels_for(device, dtype, shape.kv_heads, shape.share, shape.head_dim)
    situation = Situation.of(shape, dtype, device)
    exact = situation.double()
    expected, got = exact.attend(PLAIN), situation.attend(kernels)
    said: dict[str, Any] = {
        "dtype": str(dtype).removeprefix("torch."),
        "shape": dataclasses.asdict(shape),
        "built": kernels is not PLAIN,
    }
    built = kernels is not PLAIN or device.type != "cuda"
    errors = {
        "output": relative_error(got[0], expected[0]),
        "entropy": relative_error(got[1].mean(-1), expected[1].mean(-1)),
        "new keys": relative_error(situation.keys[1:], exact.keys[1:]),
    }
    attention = (
        said
        | {"kernel": "attention", "errors": errors}
        | speed(lambda: situation.attend(kernels), device, situation.bytes_read, repeats)
    )
    results = [attention]
    if for_methods:
        results.append(said | {"kernel": "attention for methods"} | tiles(situation, exact, device, repeats))
    exact = situation.double()
    exact.smooth(PLAIN)
    situation.smooth(kernels)
    errors_of_smoothing = {
        "keys": relative_error(situation.keys[1:], exact.keys[1:]),
        "values": relative_error(situation.values[1:], exact.values[1:]),
    }
    moved = 3 * 2 * situation.key.nbytes
    results.append(
        said
        | {"kernel": "smoothing", "errors": errors_of_smoothing}
        | speed(lambda: situation.smooth(kernels), device, moved, repeats)
    )
    for result in results:
        within = all(error <= MOST_ERROR[dtype] for error in result["errors"].values())  # NaN is not
        result["ok"] = built and within
    return results


def tiles(situation: Situation, exact: Situation, device: torch.device, repeats: int) -> dict[str, Any]:
    """Attention whose scores methods may change: relative error, milliseconds and GB/s."""
    run = functools.partial(situation.attend_tiles, PLAIN.attend_tiles)
    try:
        if device.type == "cuda":
            from kvtune.captioning import triton_tiles

            run = functools.partial(situation.attend_tiles, triton_tiles.attend_tiles)
        error = relative_error(run(), exact.attend_tiles(PLAIN.attend_tiles))
        return {"errors": {"output": error}} | speed(run, device, situation.bytes_read, repeats)
    except Exception as error:  # as in Triton's compiler; other shapes can still be told
        return {"errors": {"output": float("inf")}, "ms": 0.0, "gb_per_second": 0.0, "why": why_not_built(error)}


WAYS = [
    (kernel, {"num_warps": warps, "num_stages": stages})
    for kernel, most in (("over_prompts", 8), ("over_texts", 4))
    for warps in (most // 4, most // 2, most)
    for stages in (3, 5, 7)
]
"""Of each kernel of attention: warps of a program, and Triton's stages, with which no page is copied ahead, or one, or
two."""


def ways(shape: Shape, device: torch.device, repeats: int = 20) -> Iterator[dict[str, Any]]:
    """Milliseconds of attention in bfloat16 with one kernel or the other built in each of :data:`WAYS`."""
    from kvtune.captioning import triton_attention

    situation = Situation.of(shape, torch.bfloat16, device)
    attend: Any = triton_attention.attend
    for kernel, options in WAYS:
        kernels = Kernels(functools.partial(attend, **{kernel: options}), PLAIN.smooth)
        run = functools.partial(situation.attend, kernels)
        said = {"way": kernel, **options}
        try:
            yield said | speed(run, device, situation.bytes_read, repeats)
        except Exception as error:  # as of one that takes more memory than a card has for a program
            yield said | {"failed": why_not_built(error)}


def speed(run: Callable[[], object], device: torch.device, size: int, repeats: int) -> dict[str, float]:
    """Milliseconds of ``run``, the median of ``repeats`` in one go each, and GB/s of ``size`` bytes.

    On a GPU replayed from a graph, as steps are: the host takes longer to launch small kernels than the device to run
    them.
    """

    def several() -> None:
        for _ in range(repeats):
            run()

    graphs = step_graphs(device)
    go = several if graphs is None else functools.partial(graphs.run, "", several)
    go()
    go()  # captured here
    seconds = sorted(seconds_of(go, device) / repeats for _ in range(3))[1]
    return {"ms": 1e3 * seconds, "gb_per_second": size / seconds / 1e9}


def main() -> None:
    say_everything()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="tiny shapes, for a CPU")
    given = parser.parse_args()
    device = resolve_device(given.device)
    right = True
    with torch.inference_mode():
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        for result in projections(device, dtype, *((SMALL_PROJECTIONS, [8]) if given.small else (LLAVA_7B,))):
            print_line(result)
        for dtype in MOST_ERROR:
            for shape in SMALL if given.small else SHAPES if dtype == torch.bfloat16 else FEW_SHAPES:
                for_methods = given.small or (dtype == torch.bfloat16 and shape in FEW_SHAPES)
                for result in check(shape, dtype, device, 2 if given.small else 20, for_methods):
                    print_line(result)
                    right &= result["ok"]
        if device.type == "cuda":
            for result in ways(SHAPES[0], device):
                print_line(result)
    sys.exit(not right)


if __name__ == "__main__":
    main()
