"""Which suffix slots a step reads together: all that are needed, of few rows more, and little for nobody."""

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.captioning import grid as grid_module
from kvtune.captioning.grid import Grid

MODEL = small_vlm(small_llava(0, kv_heads=2), eos=())


@settings(max_examples=200, deadline=None)
@given(
    product=st.sampled_from([0, 1000, 20_000, 10**9]),
    slots=st.lists(st.lists(st.none() | st.integers(1, 90), min_size=3, max_size=3), min_size=1, max_size=12).filter(
        lambda groups: any(lane is not None for group in groups for lane in group)
    ),
)
def test_every_running_row_is_read_to_its_end_and_not_much_more(slots, product):
    """``slots``: how much each lane of each group has written, None where nobody runs; ``product``: what one costs."""
    with mock.patch.object(grid_module, "SPAN_BYTES", product):
        check_spans(slots, product)


def check_spans(slots, product):
    grid = Grid(MODEL, len(slots), 3)
    running = np.array([row for row in range(grid.rows) if slots[row // 3][row % 3] is not None])
    grid.host_slots[running] = [slots[row // 3][row % 3] for row in running]
    spans = grid.spans_of(running)
    assert [span.first for span in spans] == [0, *(span.last for span in spans[:-1])]
    assert spans[-1].last == grid.rows
    for span in spans:
        longest = max((grid.host_slots[row] + 1 for row in running if span.first <= row < span.last), default=1)
        assert span.slots == longest
    assert len(spans) <= 1 + sum(any(lane is not None for lane in group) for group in slots)
    if product == 10**9:
        assert len(spans) == 1
    needed = [max((slot + 1 for slot in group if slot is not None), default=0) for group in slots]
    if all(needed):
        bytes_per_slot = 2 * 2 * MODEL.head_dim * MODEL.dtype.itemsize  # keys and values of two heads
        read = sum((span.last - span.first) * span.slots for span in spans)
        saved = len(slots) - len(spans)
        assert (read - 3 * sum(needed)) * bytes_per_slot <= saved * product
        if product == 0:  # then only groups that are as long as each other
            assert read == 3 * sum(needed)


def test_groups_of_which_nobody_runs_split_nothing():
    grid = Grid(MODEL, 9, 1)
    grid.host_slots[:] = 50
    assert len(grid.spans_of(np.array([0, 2, 5, 8]))) == 1


def test_the_last_captions_of_a_run_stand_in_the_order_of_their_lengths(monkeypatch):
    """Captions that began at different times are left: neighbours are read as far as each other, not to and fro."""
    differing = []
    original = Grid.packed

    def packed(grid, order, lanes):
        longest = grid.host_slots[order].reshape(-1, lanes).max(1)
        assert (np.diff(longest) >= 0).all()
        differing.append(len(set(longest)))
        return original(grid, order, lanes)

    monkeypatch.setattr(Grid, "packed", packed)
    images = random_images(4)
    method = KVSmooth(0.5, 3, 0.5, 0, 3)
    requests = [CaptionRequest(n % 4, images[n % 4], method, n, 3 + 7 * n % 37) for n in range(32)]
    assert len(list(Captioner(MODEL, max_new_tokens=40, lanes=12).run(requests))) == 32
    assert max(differing) > 1
