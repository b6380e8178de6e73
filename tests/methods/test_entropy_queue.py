"""The tensor of queues against one deque a row and layer."""

from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.methods.kvsmooth import EntropyQueue

values = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0])  # few, so that ties happen


@settings(max_examples=100, deadline=None)
@given(data=st.data(), layers=st.integers(1, 2), rows=st.integers(1, 3), steps=st.integers(1, 12))
def test_equals_a_deque_for_every_row_and_layer(data, layers, rows, steps):
    lengths = [data.draw(st.integers(1, 6)) for _ in range(rows)]
    queue = EntropyQueue(layers, rows, "cpu")
    queue.start(torch.arange(rows), torch.tensor(lengths), max(lengths))
    naive = [[deque(maxlen=length) for length in lengths] for _ in range(layers)]
    for _ in range(steps):
        if data.draw(st.booleans()):  # a row starts afresh, perhaps with another length
            row = data.draw(st.integers(0, rows - 1))
            lengths[row] = data.draw(st.integers(1, 9))
            queue.start(torch.tensor([row]), torch.tensor([lengths[row]]), lengths[row])
            for layer in range(layers):
                naive[layer][row] = deque(maxlen=lengths[row])
        entropy = [[data.draw(values) for _ in range(rows)] for _ in range(layers)]
        shares = queue.rank(torch.tensor(entropy), slice(None))
        again = queue.rank(torch.tensor(entropy), slice(None))  # before advance() nothing is counted twice
        counts = [data.draw(st.booleans()) for _ in range(rows)]  # a row that runs its prompt's tokens counts nothing
        queue.advance(torch.tensor(counts))
        for layer in range(layers):
            for row in range(rows):
                if not counts[row]:
                    continue
                entries = naive[layer][row]
                entries.append(entropy[layer][row])
                expected = sum(entry < entropy[layer][row] for entry in entries) / len(entries)
                assert abs(shares[layer, row].item() - expected) < 1e-6
        assert torch.equal(shares, again)


def test_reorder_moves_rows_with_all_they_hold():
    queue = EntropyQueue(1, 3, "cpu")
    queue.start(torch.arange(3), torch.tensor([2, 3, 4]), 4)
    for step in range(3):
        queue.rank(torch.tensor([[0.0 + step, 5.0 - step, 2.0]]), slice(None))
        queue.advance(torch.tensor([True] * 3))
    queue.reorder(torch.tensor([2, 0, 0]))
    shares = queue.rank(torch.tensor([[3.0, 3.0, 0.5]]), slice(None))
    assert shares[0].tolist() == [3 / 4, 1 / 2, 0.0]
    assert queue.lengths.tolist() == [4, 2, 2]
