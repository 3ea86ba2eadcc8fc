"""Lists of scans: one that is bad stops no other, and the report is whole whenever it is looked at."""

import json
import threading
from dataclasses import replace

import pytest
from small_jobs import Killed, files_of

from medseg.inference.many import REPORT, work_off
from medseg.inference.model import Options
from medseg.inference.source import Source

TILES = Options(window=(28,))


@pytest.fixture
def jobs(tif, tmp_path):
    """Three scans, the second of which is none."""
    good, other = tif("a.tif"), tif("c.tif", seed=1)
    (tmp_path / "b.tif").write_text("no image")
    return [(path, tmp_path / "out" / path.name) for path in (good, tmp_path / "b.tif", other)]


def report_of(folder):
    return json.loads((folder / REPORT).read_text())["scans"]


def statuses(outcomes):
    return [outcome.status for outcome in outcomes]


def test_a_bad_scan_is_skipped_and_the_report_is_always_whole(jobs, model_of, tmp_path):
    out, found = tmp_path / "out", []
    for outcome in work_off(jobs, out, model_of(), TILES):
        found.append(outcome)
        rows = report_of(out)
        assert [row["input"] for row in rows] == [str(path) for path, _ in jobs]
        assert [row["status"] for row in rows[: len(found)]] == statuses(found)
        assert all(row["why"] == "not reached yet" for row in rows[len(found) :])
    assert statuses(found) == ["done", "skipped", "done"]
    assert "b.tif" in found[1].why
    assert report_of(out)[1]["why"] == found[1].why
    assert sorted(files_of(out)) == ["a.tif", "c.tif", REPORT]


def test_a_second_start_does_what_is_left(jobs, model_of, tif, tmp_path, monkeypatch):
    out, model = tmp_path / "out", model_of()
    assert statuses(work_off(jobs, out, model, TILES)) == ["done", "skipped", "done"]
    before = files_of(out)
    tif("b.tif", seed=2)
    assert statuses(work_off(jobs, out, model, TILES)) == ["done before", "done", "done before"]
    monkeypatch.setattr(model.network, "forward", None)
    assert statuses(work_off(jobs, out, model, TILES)) == ["done before"] * 3
    assert {name: files_of(out)[name] for name in ("a.tif", "c.tif")} == {n: before[n] for n in ("a.tif", "c.tif")}


@pytest.mark.parametrize("what", ["scan", "model", "options"])
def test_what_has_changed_is_refused_or_done_anew(jobs, model_of, tif, tmp_path, what):
    out, jobs = tmp_path / "out", [jobs[0], jobs[2]]
    model, options = model_of(), TILES
    list(work_off(jobs, out, model, options))
    before = files_of(out)
    if what == "scan":
        tif("a.tif", seed=5)
    elif what == "model":
        model = model_of(seed=1)
    else:
        options = Options(window=(28,), turns="flips")
    rest = "done before" if what == "scan" else "skipped"
    found = list(work_off(jobs, out, model, options))
    assert statuses(found) == ["skipped", rest]
    assert "exists: give --overwrite" in found[0].why
    assert files_of(out)["a.tif"] == before["a.tif"]
    over = replace(options, overwrite=True)
    assert statuses(work_off(jobs, out, model, over)) == ["done", "done"]
    assert files_of(out)["a.tif"] != before["a.tif"]


def test_a_kill_takes_nothing_from_the_report(jobs, model_of, tif, tmp_path):
    out, model, jobs = tmp_path / "out", model_of(), [jobs[0], jobs[2]]
    list(work_off(jobs, out, model, TILES))
    first = tif("0.tif", seed=3), out / "0.tif"
    for outcome in work_off([first, *jobs], out, model, TILES):
        assert outcome.input == first[0]
        break
    assert [row["key"] != "" for row in report_of(out)] == [True] * 3
    assert statuses(work_off([first, *jobs], out, model, TILES)) == ["done before"] * 3


def test_killed_within_a_scan_it_goes_on_there(jobs, model_of, tmp_path):
    out, model, jobs = tmp_path / "out", model_of(), [jobs[0], jobs[2]]

    def watch(path, progress):
        if path.name == "c.tif" and progress.done > 5:
            raise Killed

    with pytest.raises(Killed):
        list(work_off(jobs, out, model, TILES, watch=watch))
    found = list(work_off(jobs, out, model, TILES))
    assert statuses(found) == ["done before", "done"]
    assert found[1].result.resumed_tiles > 0


def test_nothing_is_written_for_a_single_bad_scan(jobs, model_of, tmp_path):
    out = tmp_path / "out"
    assert statuses(work_off(jobs[1:2], out, model_of(), TILES)) == ["skipped"]
    assert not out.exists()


def test_the_next_scan_is_opened_while_one_is_segmented(jobs, model_of, tmp_path, monkeypatch):
    opened, ahead, real = threading.Event(), [], Source.open

    def watched(path, *how):
        if path.name == "b.tif":
            opened.set()
        return real(path, *how)

    monkeypatch.setattr(Source, "open", watched)
    watch = lambda path, progress: ahead.append(path.name == "c.tif" or opened.wait(60))  # noqa: E731
    assert statuses(work_off(jobs, tmp_path / "out", model_of(), TILES, watch=watch)) == ["done", "skipped", "done"]
    assert ahead and all(ahead)


def test_a_report_that_is_none_is_no_obstacle(jobs, model_of, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / REPORT).write_text('{"scans": [1]}')
    assert statuses(work_off(jobs[:1], out, model_of(), TILES)) == ["done"]
