import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.inference.pipeline import Clock, Progress, flow

LONG = 60
"""Seconds after which a test that waits for another thread has failed."""


class Counted:
    """Units that note how many of them are taken."""

    def __init__(self, n):
        self.n, self.taken = n, 0

    def __iter__(self):
        for unit in range(self.n):
            self.taken += 1
            yield unit


def stage_threads():
    return [t for t in threading.enumerate() if t.name.startswith(("read", "write"))]


@settings(max_examples=30)
@given(n=st.integers(0, 12), ahead=st.integers(1, 4))
def test_units_keep_their_order_and_few_are_held(n, ahead):
    units, computed, written = Counted(n), [], []

    def compute(unit, values):
        assert units.taken <= len(computed) + ahead + 1
        assert len(computed) <= len(written) + ahead + 1
        computed.append(unit)
        return [*values, unit]

    done = list(flow(units, lambda unit: [-unit], compute, lambda unit, found: written.append((unit, found)), ahead))
    assert done == computed == list(range(n))
    assert written == [(unit, [-unit, unit]) for unit in range(n)]
    assert not stage_threads()


def test_reading_goes_ahead_and_writing_behind():
    """Unit 0 is computed when unit 2 has been read, and written when unit 2 has been computed."""
    is_read, is_computed = threading.Event(), threading.Event()

    def read(unit):
        if unit == 2:
            is_read.set()

    def compute(unit, values):
        if unit == 2:
            is_computed.set()
        return unit > 0 or is_read.wait(LONG)

    def write(unit, found):
        assert found
        assert unit > 0 or is_computed.wait(LONG)

    assert list(flow(range(6), read, compute, write, 2)) == list(range(6))


def test_reading_and_writing_have_threads_of_their_own():
    names = {}

    def note(stage):
        names[stage] = threading.current_thread().name

    list(flow([0], lambda u: note("read"), lambda u, v: note("compute"), lambda u, f: note("write")))
    assert names["read"].startswith("read")
    assert names["compute"] == threading.current_thread().name
    assert names["write"].startswith("write")


@settings(max_examples=30)
@given(
    stage=st.sampled_from(["units", "read", "compute", "write"]),
    at=st.integers(0, 7),
    ahead=st.integers(1, 3),
)
def test_an_error_of_any_stage_is_raised_and_ends_the_threads(stage, at, ahead):
    written = []

    def broken(name):
        def work(unit, *values):
            if (name, unit) == (stage, at):
                raise ZeroDivisionError(f"{stage} {at}")
            return unit

        return work

    def write(unit, found):
        broken("write")(unit)
        written.append(unit)

    units = (broken("units")(unit) for unit in range(8))
    with pytest.raises(ZeroDivisionError, match=f"{stage} {at}"):
        list(flow(units, broken("read"), broken("compute"), write, ahead))
    assert written == sorted(written)
    assert at not in written
    assert stage == "write" or len(written) <= at
    assert not stage_threads()


def test_a_caller_that_stops_ends_the_threads():
    written = []
    going = flow(Counted(100), lambda u: u, lambda u, v: v, lambda u, f: written.append(u))
    assert next(going) == 0
    going.close()
    assert not stage_threads()
    assert len(written) <= 1


def test_speed_is_that_of_this_start():
    assert Progress(10, done=7, before=2, voxels=1000, loop_seconds=2.0).voxels_per_second == 250
    assert Progress(0).voxels_per_second == 0


def test_a_clock_without_a_queue_has_nothing_to_wait_for():
    with Clock(torch.device("cpu")) as clock:
        pass
    clock.mark().wait()
    assert clock.seconds() >= 0
