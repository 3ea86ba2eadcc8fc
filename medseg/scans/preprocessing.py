"""How a model wants its scans: the views that stand between a file and the network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from medseg.errors import GridError, MedsegError
from medseg.files import digest_of, read_json, write_json
from medseg.scans.cache_folder import cache_folder
from medseg.scans.protocol import Scan
from medseg.scans.statistics import dataset_statistics, fixed_range, zscore
from medseg.scans.views import Normalized, Oriented, Resampled, Rescale

Kind = Literal["zscore", "range", "dataset", "none"]


class Normalization(BaseModel):
    """How intensities become the network's input, channel by channel.

    ``zscore``: (x − mean) / SD of the scan itself. ``range``: [low, high] → [0, 1], clipped (CT windows).
    ``dataset``: clipped to percentiles of the training scans, then (x − mean) / SD of what is left.
    ``none``: as stored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "zscore"
    range: tuple[float, float] | None = Field(None, description="low and high, for kind: range")
    percentiles: tuple[float, float] = Field((0.5, 99.5), description="for kind: dataset")
    rescale: dict[str, Any] | None = Field(
        None, description="kind: dataset as measured; where not given, medseg train measures it on the training scans"
    )

    @model_validator(mode="after")
    def _complete(self) -> Normalization:
        if self.kind == "range" and (self.range is None or self.range[0] >= self.range[1]):
            raise ValueError("kind: range needs range: [low, high] with low < high")
        return self

    def fitted(self, scans: Iterable[Scan]) -> Normalization:
        """With the training scans' statistics where the kind needs them and none are given.

        Raises:
            ConfigError: where given ones are not low, high, shift and scale, a number a channel each.
        """
        if self.kind == "dataset" and self.rescale is not None:
            Rescale.from_dict(self.rescale)
        if self.kind != "dataset" or self.rescale is not None:
            return self
        measured = dataset_statistics(list(scans), self.percentiles)
        return self.model_copy(update={"rescale": measured.to_dict()})

    def rescale_of(self, scan: Scan) -> Rescale | None:
        """The clip, shift and scale for one scan; None leaves it as it is.

        Raises:
            ScanError: where the scan's own statistics are asked for and it holds NaN or inf.
        """
        if self.kind == "zscore":
            return zscore(scan)
        if self.kind == "range" and self.range is not None:
            return fixed_range(*self.range)
        if self.kind == "dataset" and self.rescale is not None:
            return Rescale.from_dict(self.rescale)
        return None


class Preprocessing(BaseModel):
    """The views of a model, in order: orientation, spacing, intensities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    orientation: Annotated[str, Field(pattern="^[RLAPSI]{3}$")] | None = Field(
        "RAS", description="axis codes for scans that know how the patient lies; others are never turned"
    )
    spacing_mm: list[PositiveFloat] | None = Field(
        None, description="millimetres along each axis after orientation; null keeps each scan's own"
    )
    normalize: Normalization = Normalization()

    def grid(self, scan: Scan, order: Literal["linear", "nearest"] = "linear") -> Scan:
        """The scan (``linear``) or label (``nearest``) on the model's grid.

        Raises:
            GridError: where the spacing names another number of axes than the scan has.
        """
        if self.orientation is not None and scan.anatomical and len(scan.shape) == 3:
            scan = Oriented(scan, self.orientation)
        if self.spacing_mm is None:
            return scan
        if len(self.spacing_mm) != len(scan.shape):
            raise GridError(
                f"{scan.name} has {len(scan.shape)} axes and preprocessing.spacing_mm has {len(self.spacing_mm)}"
            )
        return Resampled(scan, tuple(self.spacing_mm), order)

    def view(self, scan: Scan) -> Scan:
        """What the network sees of a scan: float32 on the model's grid."""
        seen = self.grid(scan)
        rescale = self.normalize.rescale_of(seen)
        return seen if rescale is None else Normalized(seen, rescale)

    def remembered_view(self, scan: Scan, fingerprint: str) -> Scan:
        """As :meth:`view`, of a file whose statistics are measured once and kept in the cache folder.

        They belong to the file as it is: another place, size or time of it, and they are measured again.
        """
        if self.normalize.kind != "zscore":
            return self.view(scan)
        seen = self.grid(scan)
        key = digest_of([fingerprint, str(Path(scan.name).resolve()), self.orientation, self.spacing_mm])
        kept = statistics_folder() / f"{key}.json"
        try:
            return Normalized(seen, Rescale.from_dict(read_json(kept, "a scan's statistics")))
        except MedsegError:
            rescale = zscore(seen)
        write_json(kept, rescale.to_dict())
        return Normalized(seen, rescale)


def statistics_folder() -> Path:
    """Where scans' statistics are kept."""
    folder = cache_folder() / "statistics"
    folder.mkdir(exist_ok=True)
    return folder
