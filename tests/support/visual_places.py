"""Whether visual tokens are where their family says, told by the embeddings that change with a part of the picture."""

import numpy as np
import pytest
import torch
from PIL import Image


def towers_without_attention(vlm):
    """Lists of layers by which a visual token sees other parts of the picture than its own."""
    for module in vlm.hf_model.modules():
        for name, parts in module.named_children():
            is_tower = name in ("layers", "layer", "blocks") and module is not vlm.decoder
            if isinstance(parts, torch.nn.ModuleList) and is_tower:
                yield from parts


def check_places(vlm, size):
    """A token whose place lies well within a painted square changes; one that lies well outside does not."""
    with pytest.MonkeyPatch.context() as patch:
        for layer in towers_without_attention(vlm):
            patch.setattr(layer, "forward", lambda hidden, *arguments, **keywords: hidden, raising=False)
        random = np.random.default_rng(1)
        picture = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        (before,) = vlm.family.decoder_inputs(vlm, [picture])
        places = before.visual.places
        assert places.dtype == torch.float32
        known = places.isfinite().all(1)
        assert (places[known] >= 0).all() and (places[known] <= 1).all() and known.any()
        seen = vlm.family.seen(vlm, picture)
        left, top = (picture.width - seen.width) // 2, (picture.height - seen.height) // 2
        inside = outside = 0
        for x, y in ((0.3, 0.3), (0.6, 0.35), (0.5, 0.8)):
            painted = picture.copy()
            sides = ((left, seen.width, x - 0.2), (top, seen.height, y - 0.2), (left, seen.width, x + 0.2),
                     (top, seen.height, y + 0.2))  # fmt: skip
            painted.paste((0, 255, 0), tuple(round(start + length * share) for start, length, share in sides))
            (after,) = vlm.family.decoder_inputs(vlm, [painted])
            changed = (before.embeddings - after.embeddings)[before.visual.mask].abs().amax(1) > 1e-9
            far = (places - torch.tensor([x, y])).abs().amax(1)
            assert changed[known & (far < 0.1)].all() and not changed[known & (far > 0.56)].any()
            assert not changed[~known].any()
            inside, outside = inside + int((far < 0.1).sum()), outside + int((far > 0.56).sum())
        assert inside and outside
