"""Small jobs from file to file, and what is left of them."""

import nibabel as nib
import numpy as np
import pytest
import torch

from medseg import Box, build_network, open_scan
from medseg.inference.infer import Job
from medseg.inference.journal import Journal
from medseg.inference.model import Model, Options
from medseg.inference.settings import InferenceSettings
from medseg.inference.source import Source
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Normalization, Preprocessing

CELL = 7
"""The value of the foreground in files."""


def noise(*shape, seed=0):
    """Voxels (\\*shape), float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write_nii(path, affine, voxels):
    """A NIfTI in millimetres."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def build_model(folder, dims=2, seed=0, preprocessing=None, inference=None, window=None, **network):
    """A package of a network with random weights and two classes that both occur; loaded."""
    torch.manual_seed(seed)
    spec = {"name": "unet", "dims": dims, "depth": 1, "width": 4, "norm": "batch", **network}
    spec |= {"in_channels": 1, "out_channels": 2}
    built = build_network(spec).eval()
    _balance(built)
    card = ModelCard(
        medseg="0",
        network=spec,
        activation="softmax",
        labels={"values": {"background": 0, "cell": CELL}, "foreground": ["cell"], "instances": False},
        preprocessing=preprocessing or Preprocessing(normalize=Normalization(kind="none")),
        inference=inference or InferenceSettings(),
        window=window,
    )
    return Model.load(write_package(folder, built, card), torch.device("cpu"))


def _balance(network):
    """Has both classes win somewhere in noise, as random weights alone would not."""
    *_, last = (p for name, p in network.named_parameters() if name.endswith("bias"))
    with torch.inference_mode():
        logits = network.core(torch.randn(1, 1, *network.footprint.input_shape((16,) * network.dims)))[0]
    with torch.no_grad():
        last[0] -= (logits[0] - logits[1]).mean()


def job_of(path, model, options=None, output=None):
    output, options = output or path.parent / "out" / path.name, options or Options()
    return Job(Source.open(path, model, options), output, model, options)


def voxels_of(path):
    scan = open_scan(path)
    return scan.read(Box.of(scan.shape))


class Killed(Exception):
    """In place of SIGKILL."""


def kill(job, after=1):
    """Runs a job until its journal holds so many tiles or slabs more than before."""
    before = Journal.count(job.journal_path)

    def report(progress):
        if Journal.count(job.journal_path) >= before + after:
            raise Killed

    with pytest.raises(Killed):
        job.run(report)


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
