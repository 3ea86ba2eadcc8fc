"""The digest of a file: of its decoded voxels, and of where they lie.

The same scan or mask has the same one whenever it was written and however it was compressed. Inputs, masks and
references are all told apart by it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from medseg.datasets.checks.facts import Facts, Grid
from medseg.files import digest_of


class Digest(BaseModel):
    """Of a scan or a mask.

    Attributes:
        voxels: of its shape and decoded values, whatever the type and format that they are stored in.
        grid: of where they lie: affine, axes, unit.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    voxels: str
    grid: str

    @classmethod
    def of(cls, facts: Facts) -> Digest | None:
        """From the facts of a file; None where it could not be read."""
        if facts.error or facts.grid is None:
            return None
        return cls(voxels=facts.voxels, grid=grid_digest(facts.grid))


def grid_digest(grid: Grid) -> str:
    """Of where voxels lie."""
    return digest_of([grid.matrix, grid.axes, grid.unit, grid.anatomical])
