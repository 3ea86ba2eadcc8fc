"""The MLflow model: no pickle in it, and labels that are those of ``medseg infer``."""

from __future__ import annotations

import json
import pickle
import re
import urllib.parse
from importlib import metadata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import yaml
from small_packages import write_model

from medseg.cli.app import main
from medseg.registry.mlflow_model import requirements, write_mlflow_model
from medseg.registry.pyfunc import Segmenter
from medseg.registry.register import Registered
from medseg.tracking.store import Store

VOLUME = {"name": "unet", "dims": 3, "width": 2, "depth": 1, "in_channels": 1, "out_channels": 3}
LABELS = {"values": {"background": 0, "a": 3, "b": 7}, "foreground": ["a", "b"], "instances": False}


@pytest.fixture
def logged(registered: Registered, default: Store) -> Path:
    """The MLflow model's folder in the store."""
    source = default.client().get_model_version("cells", "1").source
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(source).path))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_no_file_of_it_is_or_names_a_pickle(logged: Path) -> None:
    found = files(logged)
    assert {"MLmodel", "data/model/model.json", "data/model/weights.safetensors", "requirements.txt"} <= set(found)
    for name, content in found.items():
        assert Path(name).suffix in ("", ".json", ".safetensors", ".txt", ".yaml"), name
        assert b"pickle" not in content, name
        with pytest.raises(Exception):  # noqa: B017 - whatever pickle says of it
            pickle.loads(content)


def test_the_flavour_loads_through_medseg_alone(logged: Path) -> None:
    about = yaml.safe_load((logged / "MLmodel").read_text())
    assert set(about["flavors"]) == {"python_function"}
    flavour = about["flavors"]["python_function"]
    assert (flavour["loader_module"], flavour["data"]) == ("medseg.registry.pyfunc", "data/model")
    assert not flavour["code"]
    assert {"inputs", "outputs", "params"} <= set(about["signature"])
    assert about["saved_input_example_info"]["type"] == "ndarray"


def test_requirements_are_pinned_and_all_that_medseg_needs() -> None:
    pinned = dict(line.split("==") for line in requirements())
    assert {"medseg", "torch", "safetensors", "mlflow"} <= set(pinned)
    wanted = [r for r in metadata.requires("medseg") if "extra ==" not in r]
    assert len(pinned) == len(wanted) + 1
    assert all(re.fullmatch(r"[\w.]+", version) for version in pinned.values())


def test_labels_are_those_of_infer(registered: Registered, default: Store, tmp_path: Path) -> None:
    import mlflow

    images = np.random.default_rng(0).integers(0, 255, (2, 1, 48, 40)).astype(np.uint8)
    for index, image in enumerate(images):
        tifffile.imwrite(tmp_path / f"{index}.tif", image[0])
    words = ["infer", str(tmp_path / "0.tif"), str(tmp_path / "1.tif"), "-m", "models:/cells@champion"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    model = mlflow.pyfunc.load_model("models:/cells@champion", model_config={"device": "cpu"})
    given = model.predict(images.astype(np.float32))
    wanted = np.stack([tifffile.imread(tmp_path / "out" / f"{index}.tif") for index in range(2)])
    assert set(np.unique(wanted)) == {0, 255}
    assert np.array_equal(given, wanted)
    assert given.dtype == wanted.dtype


def test_a_request_is_answered_as_json(registered: Registered, default: Store) -> None:
    """What ``mlflow models serve`` does with a request, without its server."""
    from mlflow.pyfunc import load_model, scoring_server

    model = load_model("models:/cells@champion")
    body = json.dumps({"inputs": np.zeros((1, 1, 8, 8)).tolist(), "params": {"spacing_mm": [0.5, 0.5]}})
    answer = scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert answer.status == 200
    assert np.shape(json.loads(answer.response)["predictions"]) == (1, 8, 8)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """A 3D model of another orientation and spacing than its scans', that fills holes."""
    from medseg.registry.pyfunc import _load_pyfunc

    folder = tmp_path_factory.mktemp("volume")
    write_model(
        folder / "package",
        network=VOLUME,
        activation="softmax",
        labels=LABELS,
        preprocessing={"orientation": "LPS", "spacing_mm": [1.5, 1.5, 2.0]},
        postprocessing=[{"name": "fill_holes"}],
        window=[20, 20, 20],
    )
    made = write_mlflow_model(folder / "package", folder / "mlflow")
    return _load_pyfunc(str(made / "data" / "model"), {"device": "cpu"})


def test_an_affine_is_the_files_own(volumes: Segmenter, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    affine = np.array([[0, -1.2, 0, 30], [1.5, 0, 0, -10], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    image = rng.normal(100, 20, (17, 14, 9)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "a.nii")
    assert main(["infer", str(tmp_path / "a.nii"), "-m", str(volumes.model.folder), "-o", str(tmp_path / "out")]) == 0
    wanted = np.asarray(nib.load(tmp_path / "out" / "a.nii").dataobj)
    stored = nib.load(tmp_path / "a.nii").affine  # a header rounds to float32
    given = volumes.predict(image[None, None], {"affine": stored.ravel().tolist()})
    assert len(np.unique(wanted)) > 1
    assert np.array_equal(given[0], wanted)


@pytest.mark.parametrize(
    ("shape", "params", "said"),
    [
        ((1, 9, 9, 9), {}, r"must be \(scans, channels, z, y, x\)"),
        ((0, 1, 9, 9, 9), {}, "must be"),
        ((1, 1, 9, 9, 9), {"spacing_mm": [1, 1]}, "must be 3 numbers above 0"),
        ((1, 1, 9, 9, 9), {"spacing_mm": [1, 1, -1]}, "must be 3 numbers above 0"),
        ((1, 1, 9, 9, 9), {"affine": [1, 2]}, "16 are a 4 x 4 matrix"),
        ((1, 1, 9, 9, 9), {"affine": [0] * 16}, "affine"),
        ((1, 1, 9, 9, 9), {"affine": [0] * 16, "spacing_mm": [1, 1, 1]}, "both given"),
        ((1, 2, 9, 9, 9), {}, "channels"),
    ],
)
def test_a_bad_request_is_the_clients(volumes: Segmenter, shape: tuple, params: dict, said: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=said) as told:
        volumes.predict(np.ones(shape, np.float32), params)
    assert told.value.get_http_status_code() == 400
