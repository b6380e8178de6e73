"""Which grid a run gets: of images by lanes on a CPU, of pages on a GPU."""

from __future__ import annotations

from collections.abc import Iterable

from kvtune.captioning.memory import GridPlan, plan_grid
from kvtune.captioning.paged_plan import PagedPlan, acting_bytes, plan_pages
from kvtune.captioning.prefill import decoder_of
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel
from kvtune.models.options import Lanes

Plan = GridPlan | PagedPlan


def plan_for(
    vlm: VisionLanguageModel,
    prompt_tokens: int,
    max_new_tokens: int,
    requests: int,
    images: int,
    lanes: Lanes = "auto",
    kept: PagedPlan | None = None,
    own_tokens: int = 1,
    row_state: int = 0,
    row_acting: int = 0,
) -> Plan:
    """The grid for a stream of requests: see :func:`plan_pages` and :func:`plan_grid`."""
    if uses_pages(vlm):
        return plan_pages(
            vlm, prompt_tokens, max_new_tokens, requests, images, lanes, kept, own_tokens, row_state, row_acting
        )
    return plan_grid(vlm, prompt_tokens, max_new_tokens, requests, images, lanes, row_state)


def uses_pages(vlm: VisionLanguageModel) -> bool:
    """Whether the grid is one of pages, as a GPU needs it, and not one of images by lanes."""
    return vlm.device.type == "cuda"


def bytes_for_methods(
    vlm: VisionLanguageModel, methods: Iterable[Method], prompt_tokens: int, text_tokens: int, of_image: float
) -> tuple[int, int]:
    """Bytes of a row for what methods remember; and, with pages, for a moment beside the scores that they change.

    Of each kind of method there is one state of all rows, whatever method each has. ``of_image`` captions of an image
    are written at once.
    """
    decoder = decoder_of(vlm)
    of_kind: dict[type[Method], int] = {}
    for part in {part for method in methods for part in method.parts}:
        of_kind[type(part)] = max(of_kind.get(type(part), 0), part.row_bytes(decoder, prompt_tokens))
    acting = 0
    if uses_pages(vlm) and any(kind.row_state(1, decoder, "cpu").changes_attention for kind in of_kind):
        acting = acting_bytes(vlm, prompt_tokens, text_tokens, of_image)
    return sum(of_kind.values()), acting
