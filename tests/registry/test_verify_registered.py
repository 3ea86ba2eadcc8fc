"""What a report of inference says of a registered model, and ``medseg verify`` after its alias has moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_packages import write_model

from medseg.cli.app import main
from medseg.registry.fetch import package_digest
from medseg.registry.register import Candidate, register
from medseg.tracking.store import Store


def test_the_address_is_told_and_the_version_found_whatever_the_alias_means(
    default: Store,
    fresh_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, other = (write_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    name, out = "verified", tmp_path / "out"
    register(Candidate(first, default), name, ("champion",))
    voxels = np.random.default_rng(0).integers(0, 200, (40, 36)).astype(np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")

    def medseg(*words: object) -> tuple[int, str]:
        code = main(list(map(str, words)))
        said = capsys.readouterr()
        return code, said.out + said.err

    assert medseg("infer", tmp_path / "a.nii.gz", "-m", f"models:/{name}@champion", "-o", out, "--tile", "28")[0] == 0
    text = (out / "report.json").read_text()
    ((model,),) = (start["models"] for start in json.loads(text)["starts"].values())
    digest = package_digest(first)
    about = {"path": f"models:/{name}@champion", "version": f"models:/{name}/1", "digest": digest}
    assert about.items() <= model.items() and str(fresh_cache) not in text

    register(Candidate(other, default), name, ("champion",))
    code, said = medseg("verify", out)
    assert code == 0 and "the model" not in said, said
    code, said = medseg("verify", out, "-m", f"models:/{name}@champion")
    assert code == 4 and "the model's weights are others" in said

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    assert medseg("verify", out)[0] == 0, "the package is here"
    shutil.rmtree(fresh_cache / "models" / digest)
    code, said = medseg("verify", out)
    assert code == 2 and "no tracking store" in said and "-m MODEL says where it is now" in said
    assert f"error: the model models:/{name}@champion cannot be fetched: " in said
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default.uri)
    code, said = medseg("verify", out)
    assert code == 0 and f"fetching models:/{name}/1" in said, said
