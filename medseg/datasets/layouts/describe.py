"""Whose ``dataset.json`` it is, and what it means."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets.layouts import msd, nnunet
from medseg.datasets.layouts.description import DATASET, DatasetInfo, own_info, read_content


def read_dataset(root: Path) -> DatasetInfo | None:
    """What the ``dataset.json`` in a folder says, in medseg's own words or another's; None where there is none.

    Raises:
        ConfigError: where it is no JSON, or lacks what it must have, or has what it must not.
    """
    content = read_content(root)
    if content is None:
        return None
    path = root / DATASET
    if nnunet.wrote(content):
        return nnunet.describe(content, path)
    return msd.describe(content, path) if "modality" in content else own_info(content, path)
