"""Where a caption ends."""

from hypothesis import given
from hypothesis import strategies as st

from kvtune.captioning.request import cut


def test_a_text_ends_at_the_first_end_of_text_token():
    assert cut([5, 6, 2, 7, 2], [2], []) == ([5, 6], "eos")


def test_a_stop_sequence_ends_it_and_is_left_out():
    assert cut([5, 8, 9, 7], [2], [[8, 9]]) == ([5], "stop")


def test_what_has_not_ended_is_none():
    assert cut([5, 8, 7, 9], [2], [[8, 9]]) is None


@given(
    st.lists(st.integers(0, 4)),
    st.lists(st.integers(0, 4), max_size=2),
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), max_size=2),
)
def test_equals_a_look_at_every_prefix(tokens, eos, stops):
    expected = None
    for end in range(1, len(tokens) + 1):
        if tokens[end - 1] in eos:
            expected = (tokens[: end - 1], "eos")
            break
        matching = [stop for stop in stops if end >= len(stop) and tokens[end - len(stop) : end] == stop]
        if matching:
            expected = (tokens[: end - len(matching[0])], "stop")
            break
    assert cut(tokens, eos, stops) == expected
