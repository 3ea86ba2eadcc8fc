"""From a mask's file to a processed one: whole or not at all, on the same grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.datasets.check import check_grid, open_label
from medseg.errors import MedsegError, ScanError, nearest
from medseg.postprocessing.chain import Chain, raw_of, run_chain
from medseg.postprocessing.components import Report
from medseg.postprocessing.mask import Grid, ScanMask
from medseg.scans.protocol import Scan
from medseg.scans.scan import create_mask, open_scan
from medseg.scans.sink import remove

if TYPE_CHECKING:
    from medseg.postprocessing.crf_tiles import Refinement


@dataclass(frozen=True)
class Evidence:
    """What a dense CRF makes a mask anew from.

    Attributes:
        refinement: how.
        image: what the network saw.
        probabilities: what it said.
    """

    refinement: Refinement
    image: Path
    probabilities: Path


def process_file(
    path: Path,
    output: Path,
    chain: Chain,
    evidence: Evidence | None = None,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """Puts a mask through a chain; with evidence, a dense CRF makes it anew first.

    Args:
        path: the mask.
        output: its final name; the suffix tells the format.
        chain: the steps.
        evidence: image and probabilities; None leaves the mask as it is.
        overwrite: whether an output that exists is replaced.
        report: takes how much of the work is done.

    Returns:
        what each step did, see :func:`medseg.postprocessing.chain.run_chain`.

    Raises:
        MedsegError: for files that cannot be read, don't belong together or don't suit the steps, or an output that
            exists or cannot be written.
    """
    like = open_label(path)
    chain.check(like)
    own = ScanMask(like, Grid.of(like)).dtype
    sink = create_mask(output, like, dtype=chain.dtype(own), overwrite=overwrite)
    if evidence is None:
        accounts = run_chain(like, sink, chain, like, report)
    else:
        raw = _refined(like, output, evidence, report)
        accounts = [{"name": "dense_crf"}, *run_chain(open_scan(raw), sink, chain, like, report)]
        remove(raw)
    sink.close()
    return accounts


def _refined(like: Scan, output: Path, evidence: Evidence, report: Report | None) -> Path:
    """A mask from image and probabilities, under a hidden name beside the output."""
    image, probabilities = open_scan(evidence.image), open_scan(evidence.probabilities)
    check_grid(like, image)
    raw = raw_of(output)
    sink = create_mask(raw, like, dtype=evidence.refinement.labels.dtype, overwrite=True)
    evidence.refinement.run(image, probabilities, sink, report)
    sink.close()
    return raw


def partner(stem: str, candidates: dict[str, Path], what: str, where: Path) -> Path:
    """The file of a mask's stem.

    Raises:
        ScanError: where there is none, with the nearest name.
    """
    if stem not in candidates:
        raise ScanError(f"{where} holds no {what} for the mask {stem!r}{nearest(stem, candidates)}")
    return candidates[stem]


def check_one_meaning(found: dict[Path, Any]) -> None:
    """Refuses masks whose values mean different things.

    Raises:
        MedsegError: naming two folders.
    """
    folders = list(found)
    for folder in folders[1:]:
        if found[folder] != found[folders[0]]:
            raise MedsegError(
                f"the masks in {folders[0]} and {folder} have different labels: process them by two commands"
            )
