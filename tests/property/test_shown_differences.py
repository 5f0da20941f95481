"""Two values that differ are shown so that one sees how."""

from hypothesis import given
from hypothesis import strategies as st

from reasonrl.rundir.differences import format_pair, format_value

SCALARS = st.text(max_size=20) | st.integers() | st.booleans() | st.none()


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_a_difference_behind_a_long_beginning_shows(beginning: str, one: str, other: str) -> None:
    if one != other:
        shown = format_pair(beginning + one, beginning + other)
        assert shown[0] != shown[1]
        assert all(len(text) <= 60 for text in shown)


@given(SCALARS, SCALARS)
def test_short_values_are_written_whole(one: object, other: object) -> None:
    texts = format_pair(one, other)
    if all(len(text) <= 30 for text in texts):
        assert texts == (format_value(one), format_value(other))


def test_two_folders() -> None:
    assert format_pair("/home/somebody/runs/of/a/long/experiment/1", "/home/somebody/runs/of/a/long/experiment/2") == (
        '...ong/experiment/1"',
        '...ong/experiment/2"',
    )
