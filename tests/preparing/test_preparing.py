import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from small_cases import LABELS, VIEWS, request, write_case

from medseg import Box, build_network
from medseg.datasets.check import open_image
from medseg.datasets.labels import Labels
from medseg.errors import ConfigError, MedsegError, OutputError
from medseg.preparing import write
from medseg.preparing.fitting import fitted
from medseg.preparing.record import RECORD, VOXELS, census_of, place_of, prepared_folder, whole
from medseg.preparing.run import prepare
from medseg.preparing.training_cases import open_prepared, training_cases
from medseg.preparing.write import prepare_case, turn
from medseg.scans.preprocessing import Normalization, Preprocessing
from medseg.training.augment import build_augmentation
from medseg.training.census import CaseCensus
from medseg.training.samples import SampleGeometry, TileSamples


def everything(scan):
    return scan.read(Box.of(scan.shape))


@pytest.mark.parametrize(
    "preprocessing",
    [
        VIEWS,
        Preprocessing(normalize=Normalization(kind="none")),
        Preprocessing(orientation=None, normalize=Normalization(kind="range", range=(-100, 300))),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_prepared_is_what_the_views_give_bit_for_bit(cache, tmp_path, preprocessing, channels):
    case = request(write_case(tmp_path, "a", channels=channels), preprocessing)
    assert prepare_case(case) == "made"
    prepared = open_prepared(case)
    for stored, view in ((prepared.image, case.image()), (prepared.label, case.label())):
        assert (stored.dtype, stored.shape, stored.axes) == (view.dtype, view.shape, view.axes)
        np.testing.assert_array_equal(stored.affine, view.affine)
        np.testing.assert_array_equal(everything(stored), everything(view))
    counted = CaseCensus.of(case.label(), LABELS)
    np.testing.assert_array_equal(prepared.census.counts, counted.counts)
    for kept, found in zip(prepared.census.foreground, counted.foreground, strict=True):
        np.testing.assert_array_equal(kept, found)
    assert case.nbytes == everything(prepared.image).nbytes + everything(prepared.label).nbytes
    assert prepare_case(case) == "there"


def test_the_key_changes_with_a_voxel_and_a_number_and_with_nothing_else(cache, tmp_path):
    case = write_case(tmp_path, "a")
    key = request(case).key
    os.utime(case.image, (1, 1))
    moved = write_case(tmp_path, "b")
    stored = nib.load(moved.image)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine), tmp_path / "b-image.nii")
    plain = type(moved)("b", tmp_path / "b-image.nii", moved.label, "P9")
    assert request(case).key == request(moved).key == request(plain).key == key
    others = [
        request(case, VIEWS.model_copy(update={"spacing_mm": [1.5, 1.0, 1.001]})),
        request(case, VIEWS.model_copy(update={"normalize": Normalization(kind="range", range=(0, 1))})),
        request(case, labels=Labels({"background": 0, "organ": 1, "lesion": 3}, ("organ",))),
    ]
    voxels = np.array(stored.dataobj)
    voxels[3, 4, 5] += 1
    nib.save(nib.Nifti1Image(voxels, stored.affine), case.image)
    others.append(request(case))
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj), stored.affine @ np.diag([1, 1, 1.1, 1])), case.image)
    others.append(request(case))
    keys = [other.key for other in others]
    assert len({key, *keys}) == len(keys) + 1


def test_nothing_that_is_kept_names_a_case_a_patient_or_a_place(cache, tmp_path):
    root = tmp_path / "Doe^Jane"
    root.mkdir()
    prepare_case(request(write_case(root, "JaneDoe-1970")))
    for path in cache.rglob("*"):
        text = str(path.relative_to(cache)).encode() + (path.read_bytes() if path.is_file() else b"")
        assert not any(word in text for word in (b"Doe", b"Jane", str(tmp_path).encode()))


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from small_cases import request, write_case
from medseg.preparing import write
from medseg.preparing.fitting import fitted
from medseg.preparing.run import prepare

requests = [request(write_case(Path(sys.argv[2]), name, seed=seed)) for seed, name in enumerate("abc")]
written, write_array = [], write.write_array
def until_the_fourth(scan, folder):
    written.append(folder)
    done = write_array(scan, folder)
    if len(written) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
write.write_array = until_the_fourth
prepare(requests, 1)
"""


def test_killed_in_the_midst_of_a_case_the_next_start_goes_on(cache, tmp_path):
    here = str(Path(__file__).parent)
    died = subprocess.run([sys.executable, "-c", KILLED, here, str(tmp_path)], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    requests = [request(write_case(tmp_path, name, seed=seed)) for seed, name in enumerate("abc")]
    left = {path.name for path in prepared_folder().iterdir()} - {"locks"}
    assert left == {requests[0].key, f".{requests[1].key}.partial"}
    assert prepare(requests, 1) == {"a": "there", "b": "made", "c": "made"}
    assert {path.name for path in prepared_folder().iterdir()} - {"locks"} == {r.key for r in requests}
    for one in requests:
        np.testing.assert_array_equal(everything(open_prepared(one).image), everything(one.image()))


def test_a_case_that_another_process_prepares_is_left_to_it_and_waited_for_last(cache, tmp_path):
    requests = [request(write_case(tmp_path, name, seed=seed)) for seed, name in enumerate("abc")]
    others, outcomes, done = threading.Event(), {}, []

    def watch(count, total):
        done.append((count, total))
        if count == 2:
            others.set()

    thread = threading.Thread(target=lambda: outcomes.update(prepare(requests, 1, watch)))
    with turn(requests[0].key, wait=True):
        assert prepare_case(requests[0], wait=False) == "busy"
        thread.start()
        assert others.wait(60)
        assert not place_of(requests[0].key).exists()
        write._make(requests[0])
    thread.join(60)
    assert outcomes == {"b": "made", "c": "made", "a": "there"}
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_several_processes_make_the_same_files(cache, tmp_path, monkeypatch):
    requests = [request(write_case(tmp_path, name, seed=seed)) for seed, name in enumerate("abc")]
    assert set(prepare(requests, 2).values()) == {"made"}
    alone = tmp_path / "alone"
    monkeypatch.setenv("MEDSEG_CACHE", str(alone))
    prepare(requests, 1)
    for path in (p for p in (alone / "prepared").rglob("*") if p.is_file()):
        assert path.read_bytes() == (cache / path.relative_to(alone)).read_bytes()


def chunk_in(request, kind):
    return next(p for p in (place_of(request.key) / kind / "c").rglob("*") if p.is_file())


def flip(path):
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


@pytest.mark.parametrize("harm", ["record", "chunk gone", "chunk cut", "voxels", "no record"])
def test_what_is_damaged_is_made_anew(cache, tmp_path, harm):
    case = request(write_case(tmp_path, "a"))
    prepare_case(case)
    folder = place_of(case.key)
    if harm == "record":
        (folder / RECORD).write_text(json.dumps({"format": 1}))
    elif harm == "chunk gone":
        chunk_in(case, "image").unlink()
    elif harm == "chunk cut":
        os.truncate(chunk_in(case, "label"), 9)
    elif harm == "voxels":
        (folder / VOXELS).write_bytes(b"")
    else:
        (folder / RECORD).unlink()
    with pytest.raises(MedsegError):
        open_prepared(case)
    assert prepare_case(case) == "mended"
    np.testing.assert_array_equal(everything(open_prepared(case).image), everything(case.image()))


def test_bits_that_have_changed_are_found_when_asked_and_when_read(cache, tmp_path, capsys):
    case = request(write_case(tmp_path, "a"))
    prepare_case(case)
    flip(chunk_in(case, "image"))
    assert prepare_case(case) == "there"
    assert prepare_case(case, verify=True) == "mended"
    flip(chunk_in(case, "image"))
    training = open_prepared(case)
    capsys.readouterr()
    for _ in range(2):
        np.testing.assert_array_equal(everything(training.image), everything(case.image()))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "damaged" in said[0]
    assert prepare_case(case) == "mended"
    flip(place_of(case.key) / VOXELS)
    with pytest.raises(MedsegError):
        census_of(whole(case.key))
    assert prepare_case(case, verify=True) == "mended"


def test_training_goes_on_where_the_cache_is_emptied_under_it(cache, tmp_path):
    case = request(write_case(tmp_path, "a"))
    (training,) = training_cases([case], 0)
    shutil.rmtree(cache)
    np.testing.assert_array_equal(everything(training.image), everything(case.image()))
    np.testing.assert_array_equal(everything(training.label), everything(case.label()))


def test_which_cases_are_prepared(cache, tmp_path, capsys):
    requests = [request(write_case(tmp_path, name, seed=seed)) for seed, name in enumerate("ab")]

    def prepared():
        folders = [r for r in requests if (cache / "prepared" / r.key).exists()]
        return [r.case.name for r in folders]

    training_cases(requests, 0, "never")
    assert prepared() == []
    training_cases(requests, requests[0].nbytes + 1)
    assert prepared() == ["b"]
    assert "1 case prepared, 0 there already" in capsys.readouterr().err
    training_cases(requests, 10**9)
    assert prepared() == ["b"]
    training_cases(requests, 10**9, "always")
    assert prepared() == ["a", "b"]


@pytest.mark.parametrize("shape", [(20, 31, 17), (9, 12, 11)])
def test_samples_are_the_same_from_memory_from_prepared_arrays_and_through_the_views(cache, tmp_path, shape):
    requests = [request(write_case(tmp_path, name, shape, seed)) for seed, name in enumerate("ab")]
    network = build_network({"name": "unet", "dims": 3, "width": 2, "depth": 1})
    geometry, augmentation = SampleGeometry.of(network, (20, 20, 20)), build_augmentation([{"name": "flip"}], 3)
    cases = [
        training_cases(requests, 10**9, "never"),
        training_cases(requests, 0, "always"),
        training_cases(requests, 0, "never"),
    ]
    assert cases[1][0].census is not None
    drawn = [TileSamples(some, LABELS, geometry, augmentation, 3, 0.5) for some in cases]
    for number in range(8):
        first, *others = (samples[number] for samples in drawn)
        for other in others:
            assert torch.equal(first["image"], other["image"])
            assert torch.equal(first["label"], other["label"])


def full(*_):
    raise OSError(28, os.strerror(28))


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(cache, tmp_path, monkeypatch, capsys):
    case = request(write_case(tmp_path, "a"))
    monkeypatch.setattr(write, "write_record", full)
    with pytest.raises(OutputError, match="No space left on device"):
        training_cases([case], 0, "always")
    assert {path.name for path in prepared_folder().iterdir()} == {"locks"}
    (training,) = training_cases([case], 0, "auto")
    assert "No space left" in capsys.readouterr().err
    np.testing.assert_array_equal(everything(training.image), everything(case.image()))


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    case = request(write_case(tmp_path, "a"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match="set MEDSEG_CACHE"):
        prepare_case(case)


def test_a_scan_that_holds_nan_is_refused_and_not_kept(cache, tmp_path):
    case = write_case(tmp_path, "a")
    stored = nib.load(case.image)
    voxels = stored.get_fdata()
    voxels[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), stored.affine), case.image)
    with pytest.raises(MedsegError, match="nan"):
        prepare_case(request(case))
    assert {path.name for path in prepared_folder().iterdir()} == {"locks"}


def test_a_data_set_s_intensities_are_measured_once_for_the_same_scans(cache, tmp_path, monkeypatch):
    cases = [write_case(tmp_path, name, seed=seed) for seed, name in enumerate("ab")]
    wanted = Preprocessing(spacing_mm=[1.5, 1.0, 1.0], normalize=Normalization(kind="dataset"))
    expected = wanted.normalize.fitted(wanted.grid(open_image(case)) for case in cases).rescale
    assert fitted(wanted, cases).normalize.rescale == expected
    monkeypatch.setattr(Normalization, "fitted", None)
    for case in cases:
        os.utime(case.image, (1, 1))
    assert fitted(wanted, cases).normalize.rescale == expected
    with pytest.raises(TypeError):
        fitted(wanted.model_copy(update={"spacing_mm": [2.0, 1.0, 1.0]}), cases)
    with pytest.raises(TypeError):
        fitted(wanted, cases[:1])
    assert fitted(VIEWS, cases) == VIEWS


@pytest.mark.parametrize("silent", ["image", "label"])
def test_a_label_is_turned_as_its_image_is_though_one_alone_says_how_the_patient_lies(cache, tmp_path, silent):
    case = write_case(tmp_path, "a")
    wanted = everything(request(case, Preprocessing()).label())
    path = tmp_path / f"a-{silent}.nii.gz"
    image = nib.load(path)
    voxels = np.asarray(image.dataobj)
    bare = nib.Nifti1Image(voxels, None)
    bare.header["pixdim"][1:4] = 1, 1, 1.2
    nib.save(bare, path)
    label = everything(request(case, Preprocessing()).label())
    stored = np.asarray(nib.load(case.label).dataobj)[None]
    np.testing.assert_array_equal(label, wanted if silent == "label" else stored)
    assert not np.array_equal(wanted, stored)
