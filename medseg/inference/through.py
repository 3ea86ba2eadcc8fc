"""The two ways through a scan behind one door: overlap tiles (one pass is one tile) and sliding windows."""

from __future__ import annotations

from medseg.geometry import Tiling
from medseg.inference.blend import Blending, blend
from medseg.inference.emit import Output
from medseg.inference.journal import Journal
from medseg.inference.pipeline import Progress
from medseg.inference.segment import Pace, Report, segment
from medseg.networks.network import Network
from medseg.scans.protocol import MaskSink, Scan


def through(
    scan: Scan,
    network: Network,
    way: Tiling | Blending,
    sink: MaskSink | Output,
    journal: Journal | None = None,
    pace: Pace | None = None,
    report: Report | None = None,
) -> Progress:
    """Segments a scan by its tiles (:func:`segment`) or by sliding windows (:func:`blend`), which see."""
    if isinstance(way, Blending):
        return blend(scan, network, way, sink, journal, pace, report)
    return segment(scan, network, way, sink, journal, pace, report)
