import multiprocessing
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.scans.cache import LEAST_BYTES, PIECES, PieceCache, held


def piece(n=LEAST_BYTES):
    return np.zeros(n, np.uint8)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=60), st.integers(0, 12))
def test_what_was_used_last_is_kept_within_the_budget(asked, budget):
    cache = PieceCache(budget * LEAST_BYTES)
    for key, size in asked:
        got = cache.get((key, size), lambda n=size: piece(n * LEAST_BYTES))
        assert got.nbytes == size * LEAST_BYTES
        assert cache.nbytes <= max(cache.budget, got.nbytes)
        made = cache.made
        assert cache.get((key, size), piece) is got and cache.made == made
    assert cache.made <= len(asked)


def test_a_smaller_budget_takes_effect_at_once():
    cache = PieceCache(10 * LEAST_BYTES)
    for key in range(10):
        cache.get(key, piece)
    cache.budget = 3 * LEAST_BYTES
    assert cache.nbytes == 3 * LEAST_BYTES
    made = cache.made
    for key in (7, 8, 9):
        cache.get(key, piece)
    assert cache.made == made


def test_a_repeated_value_counts_once():
    assert held(np.broadcast_to(np.uint16(3), (1000, 1000))) == LEAST_BYTES
    assert held(np.broadcast_to(np.zeros((1, 900), "f4"), (1000, 900))) == 3600
    assert held(np.zeros((64, 64), "f4")) == 64 * 64 * 4


def test_threads_that_want_one_piece_make_it_once():
    cache = PieceCache()
    begun, go = threading.Event(), threading.Event()

    def make():
        begun.set()
        go.wait(30)
        return piece()

    got = []
    threads = [threading.Thread(target=lambda: got.append(cache.get("a", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    other = cache.get("b", piece)
    go.set()
    for thread in threads:
        thread.join()
    assert cache.made == 2 and len(got) == 4 and all(g is got[0] for g in got) and other is not got[0]


def test_a_piece_that_cannot_be_made_is_tried_again():
    cache = PieceCache()

    def fail():
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        cache.get("a", fail)
    assert cache.get("a", piece).size == LEAST_BYTES and cache.made == 1


def test_a_forked_process_waits_for_no_thread_of_its_parent():
    begun, go = threading.Event(), threading.Event()

    def make():
        begun.set()
        go.wait(30)
        return piece()

    thread = threading.Thread(target=lambda: PIECES.get("forked", make))
    thread.start()
    assert begun.wait(30)
    child = multiprocessing.get_context("fork").Process(target=lambda: PIECES.get("forked", piece))
    child.start()
    child.join(30)
    stuck = child.is_alive()
    child.kill()
    go.set()
    thread.join()
    assert not stuck and child.exitcode == 0
