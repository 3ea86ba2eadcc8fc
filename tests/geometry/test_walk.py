import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import MedsegError
from medseg.geometry.walk import Walk

grids = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@st.composite
def walks(draw):
    grid = draw(grids)
    return Walk(grid, draw(st.lists(st.integers(1, 7), min_size=len(grid) - 1, max_size=len(grid) - 1)))


def by_hand(grid, beam):
    """The indices of a walk, by nested loops over beams, axis 0 and the cross-section."""
    strides = [math.prod(grid[a + 1 :]) for a in range(len(grid))]
    starts = itertools.product(*(range(0, n, b) for n, b in zip(grid[1:], beam, strict=True)))
    for start in starts:
        across = [range(s, min(s + b, n)) for s, b, n in zip(start, beam, grid[1:], strict=True)]
        for tile in itertools.product(range(grid[0]), *across):
            yield sum(i * s for i, s in zip(tile, strides, strict=True))


@given(walks())
def test_a_walk_is_a_permutation_of_the_tiles(walk):
    assert sorted(walk) == list(range(math.prod(walk.grid)))


@given(walks())
def test_a_walk_goes_beam_by_beam_along_axis_0(walk):
    wanted = list(by_hand(walk.grid, walk.beam))
    assert list(walk) == wanted
    assert walk[2:] == wanted[2:]
    assert walk[-1] == wanted[-1]
    for outside in (len(wanted), -len(wanted) - 1):
        with pytest.raises(IndexError):
            walk[outside]


@given(grids)
def test_a_beam_as_wide_as_the_grid_is_the_tilings_own_order(grid):
    assert list(Walk(grid, max(grid))) == list(range(math.prod(grid)))


def test_the_figure():
    assert [Walk((4, 5), 2)[i] for i in (0, 1, 2, 7, 8, 9, 16, 19)] == [0, 1, 5, 16, 2, 3, 4, 19]


def test_a_walk_over_a_huge_grid_costs_nothing():
    walk = Walk((10**6, 10**6, 10**5), (10, 7))
    assert walk[len(walk) - 1] == len(walk) - 1


@pytest.mark.parametrize(("grid", "beam"), [((), 1), ((0, 2), 1), ((2, 2), 0), ((2, 2), (1, 1))])
def test_a_walk_that_makes_no_sense_is_refused(grid, beam):
    with pytest.raises(MedsegError):
        Walk(grid, beam)
