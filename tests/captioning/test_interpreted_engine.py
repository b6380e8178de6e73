"""The engine as it is on a GPU, its Triton kernels interpreted: with every method it writes what generate() writes."""

import pytest
from triton_without_gpu import interpreted, needs_triton

pytestmark = [pytest.mark.slow, needs_triton]

ENGINE = """
import torch
from engine_requests import IMAGES, METHODS
from small_models import small_llava
from small_vlms import References, small_vlm
from kvtune.captioning import Captioner, CaptionRequest, card_pages, planning, triton_attention, triton_tiles
from kvtune.captioning.kernels import Kernels
from kvtune.captioning.triton_smoothing import smooth

LONGEST, launched = 5, []

def noted(kernel):
    def launch(*given):
        launched.append(kernel)
        return kernel(*given)
    return launch

KERNELS = map(noted, (triton_attention.attend, smooth, triton_tiles.attend_tiles))
kernels = Kernels(*KERNELS)
planning.uses_pages = lambda vlm: True
card_pages.kernels_for = lambda *shapes: kernels
model = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32), eos=())
expected = References(model, IMAGES, LONGEST)
requests = [CaptionRequest(n, IMAGES[n % 2], method, n) for n, method in enumerate(METHODS)]
captions = {caption.tag: caption.token_ids for caption in Captioner(model, max_new_tokens=LONGEST).run(requests)}
for n, method in enumerate(METHODS):
    assert captions[n] == expected(n % 2, method, LONGEST)[0], method
assert len(set(launched)) == 3
print("equal")
"""


def test_an_engine_of_interpreted_kernels_writes_what_generate_writes():
    assert interpreted(ENGINE) == "equal\n"
