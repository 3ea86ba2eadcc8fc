"""What a word on the command line means, and what is said of one that means nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.evaluation.score_table import WHOLE
from medseg.files import write_json
from medseg.tracking import Run, Store
from medseg.tracking.scores import find_scores

REPORT = {
    "labels": {"values": {"background": 0, "x": 1}, "foreground": ["x"], "instances": False, "ignore": []},
    "settings": {},
    "columns": {"dice": {"metric": "dice", "better": "higher"}},
    "cases": [
        {"case": "p", "missing": False, "labels": {"x": {"dice": 0.5, "reference_voxels": 7}}},
        {"case": "q", "missing": True, "labels": {"x": {"dice": 0.0, "reference_voxels": None}}},
    ],
}


def report(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_json(folder / "metrics.json", REPORT)
    return folder


@pytest.fixture(scope="module")
def run(store: Store) -> Run:
    """A run that was validated twice."""
    with Run.start(store, "validated", "net-1", {}, {"dataset.digest": "d1"}) as run:
        for step, dice in ((10, 0.6), (20, 0.7)):
            rows = [{"case": case, "loss": 1 - dice, "dice/x": dice} for case in "pq"]
            run.table("validation", rows, step)
    return run


@pytest.fixture(scope="module")
def unvalidated(store: Store) -> Run:
    with Run.start(store, "validated", "net-0", {}) as run:
        return run


def test_a_report_is_a_folder_or_its_file(tmp_path: Path) -> None:
    report(tmp_path / "a" / "test"), report(tmp_path / "b" / "test")
    found = find_scores([str(tmp_path / "a" / "test"), str(tmp_path / "b" / "test" / "metrics.json")])
    assert [one.scores.name for one in found] == ["a", "b"]
    assert found[0].scores.values == {("dice", "x"): {"p": 0.5, "q": 0.0}}
    assert found[0].scores.missing == ("q",) and found[0].scores.references == {"p": {"x": 7}}
    assert found[0].store is None


def test_of_a_run_that_was_reviewed_the_review_counts(store: Store, tmp_path: Path) -> None:
    report(tmp_path / "validation")
    with Run.start(store, "validated", "net-3", {}) as run:
        run.table("validation", [{"case": "p", "dice/x": 0.1}], 10)
        run.artifact(tmp_path / "validation" / "metrics.json", "validation")
    write_json(tmp_path / "run.json", {"store": store.uri, "run_id": run.id})
    for word in ("net-3", str(tmp_path)):
        (found,) = find_scores([word], store.uri)
        assert found.scores.values["dice", "x"] == {"p": 0.5, "q": 0.0} and found.scores.run == run.id
        assert found.scores.references == {"p": {"x": 7}} and found.experiment() == "validated"
    write_json(tmp_path / "run.json", {"store": f"sqlite:///{tmp_path / 'gone.db'}", "run_id": run.id})
    assert find_scores([str(tmp_path)])[0].scores.values["dice", "x"]["p"] == 0.5, "no store is needed to read a file"


def test_names_are_as_short_as_tells_them_apart(tmp_path: Path) -> None:
    for place in ("m/one/test", "m/two/test", "n/one/test"):
        report(tmp_path / place)

    def named(*places: str) -> list[str]:
        return [one.scores.name for one in find_scores([str(tmp_path / place) for place in places])]

    assert named("m/one/test", "m/two/test") == ["one", "two"]
    assert named("m/one/test", "n/one/test") == ["m", "n"]
    assert len(set(named("m/one/test", "m/two/test", "n/one/test"))) == 3


def test_a_run_is_found_by_folder_id_and_name(store: Store, run: Run, tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"store": store.uri, "run_id": run.id})
    for word in (str(tmp_path), run.id, "net-1"):
        (found,) = find_scores([word], store.uri)
        scores = found.scores
        assert (scores.run, scores.step, scores.dataset) == (run.id, 20, "d1")
        assert scores.values["dice", "x"] == {"p": 0.7, "q": 0.7} and ("loss", WHOLE) in scores.values
        assert found.experiment() == "validated" and found.store is not None and found.store.uri == store.uri


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "does not say where MLflow keeps the run"),
        ("[", "not readable as JSON"),
        ('{"store": "sqlite:///GONE/m.db", "run_id": "1"}', "there is no tracking store at"),
        ('{"store": "STORE", "run_id": "0123"}', "the run 0123 is not in the tracking store"),
        ('{"store": "STORE", "run_id": "UNVALIDATED"}', "ended before the first one"),
    ],
)
def test_a_runs_folder_that_leads_nowhere_is_told(
    store: Store, unvalidated: Run, content: str, message: str, tmp_path: Path
) -> None:
    words = {"GONE": str(tmp_path / "gone"), "STORE": store.uri, "UNVALIDATED": unvalidated.id}
    for word, value in words.items():
        content = content.replace(word, json.dumps(value)[1:-1])
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MedsegError, match=message):
        find_scores([str(tmp_path)])


def test_what_is_nothing_is_answered_with_what_is_near(
    store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report(tmp_path / "reports" / "good")
    with pytest.raises(MedsegError, match=r"neither a report.*nor a run's folder.*did you mean reports/good"):
        find_scores(["reports"])
    with pytest.raises(MedsegError, match="reports/goof does not exist; did you mean 'good'"):
        find_scores(["reports/goof"])
    with pytest.raises(MedsegError, match=r"no run in the tracking store.*did you mean 'net-1'"):
        find_scores(["net-2-1"], store.uri)
    with pytest.raises(MedsegError, match="given twice"):
        find_scores(["reports/good", str(tmp_path / "reports" / "good")])
    with pytest.raises(MedsegError, match="xyz does not exist"):
        find_scores(["xyz"])
    assert os.listdir(tmp_path) == ["reports"], "looking makes no store"
