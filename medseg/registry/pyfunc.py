"""What MLflow loads a registered model with (``loader_module``): arrays go in, labels come out.

A request needs no file of the server's and leaves none there: (N, C, \\*n) of a scan's values as they are stored, with
the voxels' size or their whole affine, and back come the labels of ``medseg infer``, by the same preprocessing, way
through the scan and postprocessing. Scans that are files go by ``medseg infer -m models:/NAME@ALIAS``.

Legend: N scans, C channels, n voxels along one axis.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridError, MedsegError, ScanError
from medseg.inference.device import find_device
from medseg.inference.emit import Output
from medseg.inference.infer import Job
from medseg.inference.model import Model, Options
from medseg.inference.segment import check_channels
from medseg.inference.source import Source
from medseg.inference.through import through
from medseg.postprocessing.chain import run_chain
from medseg.registry.mlflow_model import AFFINE, SPACING
from medseg.scans.header import diagonal
from medseg.scans.memory import ArrayScan
from medseg.scans.scan import Scan, create_mask


class Segmenter:
    """A model as MLflow calls one: ``predict(array, params)``.

    One request is worked on at a time: the plan of a scan takes most of the memory that is free.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._turn = threading.Lock()

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> NDArray[Any]:
        """Segments arrays.

        Args:
            model_input: (N, C, \\*n), values as a file stores them; the axes are the file's own, as nibabel or
                tifffile give them.
            params: ``spacing_mm``, the distance of voxels along each axis; or ``affine``, the 16 numbers of a 4 x 4
                matrix from voxels to RAS+ millimetres, row by row, which also says how the patient lies.

        Returns:
            (N, \\*n): the values that masks have.

        Raises:
            MlflowException: where the arrays or the parameters are not fit, which a server answers with 400.
        """
        from mlflow.exceptions import MlflowException

        try:
            with self._turn:
                return segment_arrays(self.model, np.asarray(model_input), params or {})
        except MedsegError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Segmenter:
    """What MLflow calls with the package's folder; ``model_config`` may name a ``device`` as ``medseg infer`` does."""
    device = find_device(str((model_config or {}).get("device", "auto")))
    return Segmenter(Model.load(Path(path), device))


def segment_arrays(model: Model, arrays: NDArray[Any], params: Mapping[str, Any]) -> NDArray[Any]:
    """(N, C, \\*n) → (N, \\*n) labels; see :meth:`Segmenter.predict`.

    Raises:
        MedsegError: for other axes or channels, or parameters that are not fit.
    """
    network = model.network
    if arrays.ndim != 2 + network.dims or not len(arrays):
        axes = ", ".join("zyx"[-network.dims :])
        raise ScanError(
            f"the array has shape {arrays.shape} and must be (scans, channels, {axes}): {network.dims} spatial axes"
        )
    affine = _affine(params, network.dims)
    return np.stack([segment_scan(model, GivenScan(array, affine)) for array in arrays])


def segment_scan(model: Model, scan: Scan) -> NDArray[Any]:
    """A scan in memory → its labels, (\\*n): the plan and the steps are those of ``medseg infer``."""
    check_channels(scan, model.network)
    source = Source(Path("array.nii"), "", scan, model.card.preprocessing.view(scan))
    job = Job(source, source.path, model, Options(overwrite=True))
    plan, labels = job.plan, model.labels
    sink: Any = create_mask(None, scan, dtype=labels.dtype)
    through(source.view, job.network, job.way(plan), Output(sink, model.decoder, labels.decode), None, job.pace(plan))
    if job.chain.steps:
        raw, sink = ArrayScan(sink.array[None]), create_mask(None, scan, dtype=job.chain.dtype(labels.dtype))
        run_chain(raw, sink, job.chain, scan)
    labelled: NDArray[Any] = sink.array
    return labelled


class GivenScan(ArrayScan):
    """An array (C, \\*n) whose voxels have a size, and with a whole affine a place in the patient.

    Args:
        array: the values.
        affine: 4 x 4 and whether it is anatomical; None for voxels of unknown size.
    """

    def __init__(self, array: NDArray[Any], affine: tuple[NDArray[np.float64], bool] | None) -> None:
        super().__init__(array)
        if affine is not None:
            matrix, anatomical = affine
            self.header = replace(self.header, affine=matrix, unit="mm", anatomical=anatomical)


def _affine(params: Mapping[str, Any], dims: int) -> tuple[NDArray[np.float64], bool] | None:
    """What the parameters say of the voxels.

    Raises:
        GridError: where both are given, or one has another count of numbers or some that are not fit.
    """
    spacing, affine = (_numbers(params.get(name)) for name in (SPACING, AFFINE))
    if spacing and affine:
        raise GridError(f"{SPACING} and {AFFINE} are both given: the affine holds the spacing; give one of them")
    if affine:
        if len(affine) != 16 or not np.isfinite(affine).all():
            raise GridError(f"{AFFINE} has {len(affine)} numbers: 16 are a 4 x 4 matrix, row by row")
        return np.array(affine).reshape(4, 4), True
    if not spacing:
        return None
    if len(spacing) != dims or not np.isfinite(spacing).all() or min(spacing) <= 0:
        raise GridError(f"{SPACING} is {spacing}: it must be {dims} numbers above 0, in millimetres")
    return diagonal(tuple(spacing)), False


def _numbers(value: Sequence[float] | None) -> list[float]:
    return [] if value is None else [float(number) for number in np.ravel(value)]
