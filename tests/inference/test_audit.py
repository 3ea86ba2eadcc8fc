"""The report: the same work gives the same digests, and what is put down outlives kills and later starts."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from small_jobs import CELL, Killed, noise, voxels_of, write_nii

from medseg import MedsegError
from medseg.datasets.checks.facts import Facts, facts_of
from medseg.datasets.checks.finding import CaseFacts
from medseg.datasets.fingerprint import Fingerprint
from medseg.inference.audit import FORMAT, REPORT, Digest, read_report
from medseg.inference.many import work_off
from medseg.inference.model import Options
from medseg.inference.settings import InferenceSettings
from medseg.inference.verify import Verification

TILES = Options(window=(28,), batch=2)
FLAT = np.diag([1.0, 1.0, 1.0, 1.0])


@pytest.fixture
def scan(tmp_path):
    return write_nii(tmp_path / "a.nii.gz", FLAT, noise(60, 52))


def run(scans, folder, model, options=TILES, **how):
    """The rows of the report."""
    scans = scans if isinstance(scans, list) else [scans]
    list(work_off([(path, folder / path.name) for path in scans], folder, model, options, **how))
    return {row.output: row for row in read_report(folder).scans}


def only(rows):
    (row,) = rows.values()
    return row


def remembering(model, path):
    """The model, as if trained on this image."""
    known = Fingerprint.of([CaseFacts("a", "a", (facts_of(path, "image"),), None)])
    return replace(model, card=model.card.model_copy(update={"fingerprint": known}))


@pytest.mark.parametrize("options", [TILES, replace(TILES, turns="flips", probabilities="float32")])
def test_the_same_work_has_the_same_digests_wherever_and_whenever(scan, model_of, tmp_path, options):
    model, one, two = model_of(), tmp_path / "one", tmp_path / "two"
    rows = [only(run(scan, folder, model, options)) for folder in (one, two)]
    assert rows[0].output_digest == rows[1].output_digest is not None
    assert rows[0].input_digest == rows[1].input_digest is not None
    assert (rows[0].probabilities_digest is not None) == (options.probabilities is not None)
    assert rows[0].probabilities_digest == rows[1].probabilities_digest
    assert rows[0].start == rows[1].start
    assert rows[0].output_digest != rows[0].input_digest


@pytest.mark.parametrize("mode", ["sliding-window", "tile-overlap", "whole"])
def test_every_way_through_a_scan_is_gone_again(scan, model_of, tmp_path, mode):
    padded = {"padding": "same", "window": [28, 28]} if mode == "sliding-window" else {}
    model, settings = model_of(**padded), InferenceSettings(mode=mode, overlap=0.25)
    options = replace(TILES, window=None, settings=settings)
    row = only(run(scan, tmp_path / "out", model, options))
    verdict = Verification.open(tmp_path / "out").verify(row, model, tmp_path / "new")
    assert verdict.same and verdict.digest == row.output_digest and verdict.changed == ()
    other = model_of(seed=1, name="other", **padded)
    changed = Verification.open(tmp_path / "out", models=[other.folder]).verify(row, other, tmp_path / "newer")
    assert not changed.same and any("weights" in clause for clause in changed.changed)
    one, two = (voxels_of(tmp_path / folder / scan.name) for folder in ("out", "newer"))
    assert changed.difference.voxels == np.count_nonzero(one != two) > 0
    assert changed.difference.labels["cell"].dice == pytest.approx(
        2 * np.count_nonzero((one > 0) & (two > 0)) / (np.count_nonzero(one) + np.count_nonzero(two))
    )


def test_a_digest_is_of_voxels_and_place_alone(tmp_path):
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    known = [
        write_nii(tmp_path / name, affine, array)
        for name, affine, array in [
            ("a.nii", FLAT, voxels),
            ("b.nii.gz", FLAT, voxels.astype(np.int32)),
            ("c.nii", FLAT, voxels + (voxels == 23)),
            ("d.nii", np.diag([1.0, 1.0, 2.0, 1.0]), voxels),
        ]
    ]
    first, packed, changed, moved = (Digest.of(facts_of(path, "image")) for path in known)
    assert first == packed
    assert changed.grid == first.grid and changed.voxels != first.voxels
    assert moved.grid != first.grid and moved.voxels == first.voxels
    assert Digest.of(Facts("is damaged")) is None


def test_interrupted_and_resumed_has_the_digest_of_uninterrupted(scan, model_of, tmp_path):
    model = model_of()
    whole = only(run(scan, tmp_path / "whole", model))

    def watch(path, progress):
        if progress.done > 3:
            raise Killed

    with pytest.raises(Killed):
        run(scan, tmp_path / "torn", model, watch=watch)
    torn = only(run(scan, tmp_path / "torn", model))
    assert any("going on" in note for note in torn.notes)
    assert torn.output_digest == whole.output_digest
    assert (torn.plan.window, torn.plan.batch, torn.plan.tiles) == (
        whole.plan.window,
        whole.plan.batch,
        whole.plan.tiles,
    )


def test_what_is_put_down(scan, model_of, tmp_path):
    model = model_of()
    row = only(run(scan, tmp_path / "out", model, replace(TILES, turns="flips")))
    start = read_report(tmp_path / "out").starts[row.start]
    values, counts = np.unique(voxels_of(tmp_path / "out" / scan.name), return_counts=True)
    assert row.label_voxels == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert set(row.label_voxels) == {0, CELL}
    assert row.plan.window == (28, 28) and row.plan.batch == 2
    assert start.options.turns == "flips" and start.options.settings.mode == "tile-overlap"
    assert start.models[0].weights_sha256 == model.card.weights_sha256
    assert {"medseg", "torch", "monai", "numpy", "python"} <= set(start.versions)
    assert start.device == "cpu" and row.begun.endswith("+00:00")


def test_a_kill_between_the_mask_and_its_digests_costs_nothing(scan, model_of, tmp_path, monkeypatch):
    out, model = tmp_path / "out", model_of()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("medseg.inference.many.with_digests", lambda *_: (_ for _ in ()).throw(Killed))
        run(scan, out, model)
    assert only({row.output: row for row in read_report(out).scans}).output_digest is None
    monkeypatch.setattr(model.network, "forward", None)
    row = only(run(scan, out, model))
    assert row.status == "done before"
    assert row.output_digest == Digest.of(facts_of(out / scan.name, "label"))


def test_later_starts_keep_what_is_known_of_earlier_ones(scan, model_of, tmp_path):
    out, model = tmp_path / "out", model_of()
    first = only(run(scan, out, model))
    other = write_nii(tmp_path / "b.nii.gz", FLAT, noise(60, 52, seed=1))
    rows = run([other], out, model, replace(TILES, turns="flips"))
    assert rows[first.output] == first
    assert len({row.start for row in rows.values()}) == len(read_report(out).starts) == 2
    refused = run([scan, other], out, model, replace(TILES, turns="rotations"))[first.output]
    assert refused.output_digest == first.output_digest and refused.start == first.start
    assert "--overwrite" in refused.notes[-1]
    replaced = run([scan], out, model, replace(TILES, turns="rotations", overwrite=True))[first.output]
    assert replaced.start != first.start
    assert first.start not in read_report(out).starts


def test_a_scan_unlike_the_training_images_is_told_marked_and_refused_where_that_is_asked(scan, model_of, tmp_path):
    model, said = remembering(model_of(), scan), []
    thick = write_nii(tmp_path / "thick.nii.gz", np.diag([1.0, 2.0, 1.0, 1.0]), noise(60, 52))
    rows = run([scan, thick], tmp_path / "out", model, say=said.append)
    good, marked = (rows[str(tmp_path / "out" / path.name)] for path in (scan, thick))
    assert good.remarks == [] and [remark["check"] for remark in marked.remarks] == ["spacing"]
    (line,) = [line for line in said if "unlike" in line]
    assert "2 mm" in line and "\n" not in line and marked.notes == [line]
    strict = run([scan, thick], tmp_path / "strict", model, replace(TILES, strict=True))
    assert [row.status for row in strict.values()] == ["done", "skipped"]
    assert "without --strict" in strict[str(tmp_path / "strict" / thick.name)].why
    assert strict[str(tmp_path / "strict" / thick.name)].remarks == marked.remarks
    assert strict[str(tmp_path / "strict" / scan.name)].output_digest == good.output_digest


def test_strictness_needs_a_package_that_remembers(scan, model_of, tmp_path):
    with pytest.raises(MedsegError, match="--strict needs a package"):
        run(scan, tmp_path / "out", model_of(), replace(TILES, strict=True))


def test_files_of_one_size_and_time_are_two(model_of, tmp_path):
    paths = [write_nii(tmp_path / f"{seed}.nii", FLAT, noise(60, 52, seed=seed)) for seed in (0, 1)]
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    digests = {row.input_digest.voxels for row in run(paths, tmp_path / "out", model_of()).values()}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": FORMAT + 1, "scans": []}, "install a newer medseg"),
        ({"scans": []}, "older medseg"),
        ({"format": FORMAT, "scans": [{"input": 3}]}, "scans.0"),
        ({"format": FORMAT, "scans": [{"input": "a", "output": "b", "status": "done", "plan": {"core": "x"}}]}, "plan"),
        ({"format": FORMAT}, "scans"),
        ([1], "damaged or no report"),
    ],
)
def test_a_report_that_is_none_is_refused(tmp_path, content, message):
    (tmp_path / REPORT).write_text(json.dumps(content))
    with pytest.raises(MedsegError, match=message):
        read_report(tmp_path)


def test_a_report_that_is_missing_or_cut_short_is_refused(tmp_path):
    with pytest.raises(MedsegError, match="missing"):
        read_report(tmp_path)
    (tmp_path / REPORT).write_text('{"format": 1, "sca')
    with pytest.raises(MedsegError, match="not readable as JSON"):
        read_report(tmp_path)
