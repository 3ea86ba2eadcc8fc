"""Intensities of the training scans, measured once."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.datasets.cases import Case
from medseg.datasets.check import open_image
from medseg.datasets.checks.survey import image_items
from medseg.errors import MedsegError
from medseg.files import digest_of, read_json, write_json
from medseg.preparing.request import contents_of
from medseg.scans.preprocessing import Preprocessing, statistics_folder
from medseg.scans.views import Rescale


def fitted(preprocessing: Preprocessing, cases: Sequence[Case]) -> Preprocessing:
    """Preprocessing with the statistics of the training cases, where its kind needs them.

    They are kept in the cache folder by the digests of the scans and of all that they depend on.

    Args:
        preprocessing: the config's.
        cases: those that are trained on.

    Raises:
        MedsegError: where a scan cannot be read, or holds NaN or inf.
    """
    normalize = preprocessing.normalize
    if normalize.kind != "dataset":
        return preprocessing
    terms = [preprocessing.orientation, preprocessing.spacing_mm, list(normalize.percentiles)]
    key = digest_of(["dataset", *terms, contents_of(cases, image_items)])
    kept = statistics_folder() / f"{key}.json"
    try:
        rescale = Rescale.from_dict(read_json(kept, "a data set's statistics")).to_dict()
    except MedsegError:
        rescale = normalize.fitted(preprocessing.grid(open_image(case)) for case in cases).rescale or {}
        write_json(kept, rescale)
    return preprocessing.model_copy(update={"normalize": normalize.model_copy(update={"rescale": rescale})})
