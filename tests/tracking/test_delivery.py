"""Values reach the store once and in order, whatever the store does; and the training never waits for it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.tracking import delivery as module
from medseg.tracking.delivery import Delivery


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FLUSH_SECONDS", 0.001)
        patch.setattr(module, "RETRY_SECONDS", 0.0)
        patch.setattr(module, "BATCH", 4)
        yield


def point(number: int) -> Any:
    return SimpleNamespace(key="loss", step=number)


@given(answers=st.lists(st.booleans(), max_size=20), groups=st.lists(st.integers(0, 9), max_size=12))
@settings(max_examples=40, deadline=None)
def test_every_value_arrives_once_in_order_or_is_counted(answers: list[bool], groups: list[int]) -> None:
    script = iter(answers)
    arrived: list[int] = []

    def send(points: list[Any]) -> None:
        if not next(script, True):
            raise ConnectionError("down")
        arrived.extend(p.step for p in points)

    delivery = Delivery(send, "a store")
    posted = 0
    for group in groups:
        delivery.post([point(posted + i) for i in range(group)])
        posted += group
    delivery.close()
    assert arrived == list(range(len(arrived)))
    assert len(arrived) + delivery.waiting == posted and delivery.lost == 0


def test_jobs_keep_their_order_through_an_outage(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    tries = iter([False, False, True])

    def stubborn() -> None:
        if not next(tries):
            raise ConnectionError("down\nsecond line")
        done.append("first")

    finished = threading.Event()
    delivery = Delivery(lambda points: None, "a store")
    delivery.submit("a", stubborn)
    delivery.submit("b", lambda: done.append("second"))
    delivery.submit("c", finished.set)
    assert finished.wait(30)
    delivery.close()
    assert done == ["first", "second"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "does not answer (down)" in said[0] and said[0].startswith("warning: ")


def test_nobody_waits_for_a_store_that_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 1e6)

    def never() -> None:
        raise TimeoutError("no answer")

    delivery = Delivery(lambda points: never(), "a store")
    delivery.submit("a file", never, wait=True)
    assert not delivery.answering
    delivery.submit("another file", never, wait=True)
    delivery.post([point(0)])
    delivery.close()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "3 values, pictures or files did not reach" in said[1]


def test_what_the_store_refuses_is_left_out_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    from medseg.quiet import quiet_mlflow

    quiet_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    def refuse(points: list[Any]) -> None:
        raise MlflowException("no such name", INVALID_PARAMETER_VALUE)

    done = threading.Event()
    delivery = Delivery(refuse, "a store")
    for number in range(10):
        delivery.post([point(number)])
    delivery.submit("a job", done.set, wait=True)
    assert done.is_set() and delivery.answering
    delivery.close()
    said = capsys.readouterr().err.splitlines()
    assert ["refuses values: no such name" in line for line in said] == [True, False]
    assert "10 values" in said[1]


def test_memory_is_bounded_while_the_store_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 1e6)
    monkeypatch.setattr(module, "MOST_POINTS", 10)
    monkeypatch.setattr(module, "MOST_JOBS", 5)

    def never(points: Any = None) -> None:
        raise ConnectionError

    delivery = Delivery(never, "a store")
    delivery.submit("first", never, wait=True)
    for number in range(100):
        delivery.post([point(number)])
        delivery.submit("job", never)
    assert delivery.waiting == 15
    assert delivery.lost == 90 + 96
    delivery.close()


def test_nothing_is_taken_after_the_end() -> None:
    arrived: list[Any] = []
    delivery = Delivery(arrived.extend, "a store")
    delivery.close()
    delivery.post([point(0)])
    delivery.submit("late", lambda: arrived.append("late"), wait=True)
    assert arrived == [] and delivery.lost == 2
