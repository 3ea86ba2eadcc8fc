"""Nothing that a command says or leaves behind tells who a patient is."""

import base64
import csv
import gzip
import io
import json
import shutil
import stat
import zipfile
import zlib

import nibabel as nib
import numpy as np
import phi
import pytest
import tifffile
from dicom_files import write_series
from nibabel.nifti1 import Nifti1Extension
from numcodecs import Blosc, Zstd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medseg.datasets.case_names import MAP

SHAPE = (16, 16, 6)
AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])
PATIENTS = 3
KEYS = [
    "network.width=2",
    "network.depth=1",
    "training.max_steps=2",
    "training.validations=1",
    "training.warmup_steps=0",
    "training.workers=0",
    "training.window=[12]",
    "training.batch=1",
    "tracking.pictures=1",
]

CONFIG = (
    "name: private\nnetwork: {name: unet, dims: 3, norm: batch, padding: same}\n"
    "preprocessing: {spacing_mm: [1.5, 1.5, 3]}\ntraining: {cache_mib: 0}\n"
)


def volume(number):
    """An image and its label."""
    label = np.zeros(SHAPE, np.uint8)
    label[2 + number : 12, 5:14, 2:5] = 1
    noise = np.random.default_rng(number).integers(0, 40, SHAPE)
    return (label * np.int64(300) + noise).astype(np.int16), label


def nifti(path, voxels, number):
    """A NIfTI file every free text of whose header is marked."""
    image = nib.Nifti1Image(voxels, AFFINE)
    for key in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[key] = phi.marked(key[:4], number)
    image.header.extensions.append(Nifti1Extension("comment", phi.marked("comment", number).encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A table of DICOM series whose names, files and headers are marked, and one NIfTI; with labels; and the marks."""
    root, marks, rows = tmp_path_factory.mktemp("hospital") / "studies", set(), []
    for number in range(PATIENTS):
        name = phi.marked("Doe_John", number)
        image, label = volume(number)

        def edit(k, made, number=number):
            marks.update(phi.plant(made, number))
            made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"{made.SeriesInstanceUID}.{k + 1}"

        names = [f"{phi.marked('IM', k)}.dcm" for k in range(SHAPE[2])]
        write_series(root / "scans" / name, image, AFFINE, names=names, edit=edit)
        nifti(root / "truth" / f"{name}.nii.gz", label, number)
        rows.append((f"scans/{name}", f"truth/{name}.nii.gz", f"{phi.MARK}MRN{number}"))
    image, label = volume(PATIENTS)
    nifti(root / "scans" / "plain.nii.gz", image, PATIENTS)
    nifti(root / "truth" / "plain.nii.gz", label, PATIENTS)
    with (root / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerows([("image", "label", "patient"), *rows, ("scans/plain.nii.gz", "truth/plain.nii.gz", "")])
    return root, marks


class Watched:
    """Runs commands, and keeps what they say."""

    def __init__(self, medseg):
        self._medseg = medseg
        self.said = []

    def __call__(self, *words, code=0):
        found, out, err = self._medseg(*words)
        self.said.append((words[0], out + err))
        assert found == code, (words[0], out, err)
        return out, err

    def leaks(self, marks):
        """What was said, where it holds a mark."""
        return [one for one in self.said if phi.found_in(one[1].encode(), marks)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own for all that is written, cache and settings included, where commands run."""
    for name, folder in (("MEDSEG_CACHE", "cache"), ("MEDSEG_CONFIG", "settings")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setattr("medseg.private._NAMES", {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_maps(place, folders, root):
    """Case maps lie where they should, for their owner alone, and lead back."""
    maps = sorted(place.rglob(MAP))
    assert {path.parent.name for path in maps} == folders
    for path in maps:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert all(row["file"].startswith(f"{root}/") and row["case"].startswith("case-") for row in rows)
    assert stat.S_IMODE((place / "settings" / "case_salt").stat().st_mode) == 0o600
    return maps


def test_no_mark_in_dicom_reaches_anything_that_is_said_or_written(medseg, studies, place):
    root, marks = studies
    watched = Watched(medseg)
    (place / "config.yaml").write_text(CONFIG)
    store = f"sqlite:///{place}/mlflow.db"
    labels = "data.labels={background: 0, organ: 1}"
    excluded = f"data.exclude=[{phi.marked('Doe_John', 2)}]"
    keys = [f"data.root={root}", labels, f"tracking.uri={store}", "data.validation=0.4", *KEYS]
    watched("check", "config.yaml", *keys, "-o", "checked", "-v", "--fresh", "--workers", 1)
    watched("plan", root, labels, "-o", "plan.yaml", "--network", "unet", "--workers", 1)
    watched("prepare", "config.yaml", *keys, excluded, "--workers", 1)
    watched("cache", "list")
    watched("train", "config.yaml", *keys, excluded, "data.folds=2", "--fold", 0, "-o", "run")
    watched("register", "run", "--name", "private", "--alias", "champion", "--store", store)
    watched("infer", root / "scans", "-m", "run", "-o", "masks", "--probabilities", "--json")
    watched("infer", root / "scans", "-m", "run", "-o", "none", "--dry-run")
    watched("evaluate", "--predictions", "masks", "--references", root / "truth", "-o", "scores", "--json")
    watched("verify", "masks", "-o", "again")
    watched("sync", "run")
    watched("export", "run", "-o", "network.onnx")
    assert watched.leaks(marks) == []
    maps = check_maps(place, {"checked", "run", "masks", "scores"}, root)
    assert phi.leaks(place, marks, spared=maps) == {}
    assert {path.name for path in (place / "masks").iterdir()} >= {"plain.nii.gz", MAP}


def test_no_mark_in_dicom_reaches_what_folds_and_segs_leave_behind(medseg, studies, place):
    """But for the DICOM SEG itself, which tells whose it is, since the standard demands it."""
    root, marks = studies
    watched = Watched(medseg)
    (place / "config.yaml").write_text(CONFIG)
    store = f"sqlite:///{place}/mlflow.db"
    labels = "data.labels={background: 0, organ: 1}"
    keys = [f"data.root={root}", labels, f"tracking.uri={store}", *KEYS]
    watched("train", "config.yaml", *keys, "data.folds=2", "--fold", "all", "-o", "folds")
    series = [path for path in sorted((root / "scans").iterdir()) if path.is_dir()]
    watched("infer", *series, "-m", "folds", "-o", "segs", "--format", "dcm", "--json", "--track", "--store", store)
    watched("infer", *series, "-m", "folds/fold0", "-o", "segs", "--format", "dcm", code=3)
    watched("verify", "segs", "-o", "again", "--json")
    watched("verify", "segs", "--root", "folds", code=2)
    given = ["--predictions", "segs", "--references", root / "truth", "--predicted-only"]
    _, err = watched("evaluate", *given, "-o", "scores", "--track", "--store", store)
    assert f"{PATIENTS} of {PATIENTS} cases were trained on by one of these models: case-" in err
    watched("evaluate", "folds", "-o", "pooled", "--json")
    watched("compare", "scores", "pooled", "--common-cases", "-o", "compared", "--store", store)
    watched("sync", "folds", "segs")
    assert watched.leaks(marks) == []
    folders = {"folds", "fold0", "fold1", "validation", "segs", "scores", "pooled"}
    maps = check_maps(place, folders, root)
    segs = sorted(place.rglob("*.dcm"))
    assert len(segs) == 2 * PATIENTS
    assert phi.leaks(place, marks, spared=[*maps, *segs]) == {}
    assert phi.found_in(" ".join(path.name for path in segs).encode(), marks) == set()
    assert all(phi.found_in(path.read_bytes(), marks) for path in segs)


def test_no_mark_in_dicom_reaches_an_error(medseg, studies, place, tmp_path):
    """Damaged files, several series, twins, a patient in two parts: what is wrong is said without who it is."""
    root, marks = studies
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    first, second, third = sorted(path for path in (broken / "scans").iterdir() if path.is_dir())
    next(first.iterdir()).write_bytes(b"\0" * 128 + b"DICM" + b"\x08\0")
    for path in list(second.iterdir())[:3]:
        shutil.copy(path, third / f"{path.name}2")
    (broken / "split.json").write_text(json.dumps({"train": [second.name, "x"], "validation": [second.name]}))
    watched = Watched(medseg)
    watched("check", broken, "--workers", 1, "-o", "checked", code=2)
    watched("check", broken, "--workers", 1, "--json", code=2)
    assert watched.leaks(marks) == []
    assert phi.leaks(place / "checked", marks, spared=[place / "checked" / MAP]) == {}


def test_under_digests_no_name_of_any_file_is_told(medseg, trained, place):
    """And no text in TIFF tags or PNG chunks, whatever cases are called."""
    scans = place / phi.marked("scans")
    scans.mkdir()
    pixels = np.random.default_rng(0).integers(0, 200, (48, 40)).astype(np.uint8)
    words = {"description": phi.marked("words"), "software": phi.marked("soft"), "datetime": "1777:01:02 03:04:05"}
    tifffile.imwrite(
        scans / f"{phi.marked('tiff')}.tif", pixels, extratags=[(315, 2, 0, phi.marked("artist"), True)], **words
    )
    chunks = PngInfo()
    chunks.add_text("Author", phi.marked("author"))
    chunks.add_text("Comment", phi.marked("comment"), zip=True)
    Image.fromarray(pixels).save(scans / f"{phi.marked('png')}.png", pnginfo=chunks)
    (scans / f"{phi.marked('bad')}.png").write_bytes(b"\x89PNG")
    marks = {phi.MARK, "1777:01"}
    watched = Watched(medseg)
    watched("infer", scans, "-m", trained, "-o", "masks", "--case-names", "digest", code=3)
    shutil.copytree("masks", "truth")
    watched("evaluate", "--predictions", "masks", "--references", "truth", "--images", scans, "-o", "scores")
    assert watched.leaks(marks) == []
    spared = [*place.rglob(MAP), scans]
    assert phi.leaks(place, marks, spared) == {}
    with (place / "masks" / MAP).open(newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {str(path) for path in scans.iterdir()}


def test_the_search_finds_a_mark_wherever_it_is_hidden(tmp_path):
    """As text, compressed, in archives, pictures and pages."""
    mark = phi.marked("hidden").encode()
    text = b"x" * 50 + mark + b"x" * 50
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("inner.gz", gzip.compress(text))
    chunks = PngInfo()
    chunks.add_text("Comment", mark.decode(), zip=True)
    picture = io.BytesIO()
    Image.new("L", (3, 3)).save(picture, "PNG", pnginfo=chunks)
    hidden = {
        "plain": text,
        "wide": mark.decode().encode("utf-16-le"),
        "gzip": gzip.compress(text),
        "zlib": zlib.compress(text),
        "zstd": Zstd().encode(text),
        "blosc": Blosc(cname="zstd").encode(text),
        "zip": archive.getvalue(),
        "png": picture.getvalue(),
        "page": b'<script id="x">' + base64.b64encode(gzip.compress(text)) + b"</script>",
    }
    for name, content in hidden.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / mark.decode()).mkdir()
    assert set(phi.leaks(tmp_path, {phi.MARK})) == {*hidden, mark.decode()}
    (tmp_path / "clean").write_bytes(gzip.compress(b"x" * 100))
    assert "clean" not in phi.leaks(tmp_path, {phi.MARK})
