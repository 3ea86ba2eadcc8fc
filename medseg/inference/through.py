"""The two ways through a scan behind one door: overlap tiles (one pass is one tile) and sliding windows."""

from __future__ import annotations

from medseg.geometry import Tiling
from medseg.inference import blend as windows
from medseg.inference import segment as tiles
from medseg.inference.emit import Output
from medseg.inference.journal import Journal
from medseg.inference.pipeline import Progress, Report
from medseg.inference.segment import Pace
from medseg.inference.windows import Blending
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
    """Segments a scan by its tiles, or by sliding windows: see ``segment`` and ``blend``."""
    if isinstance(way, Blending):
        return windows.blend(scan, network, way, sink, journal, pace, report)
    return tiles.segment(scan, network, way, sink, journal, pace, report)


def outlook(
    scan: Scan, network: Network, way: Tiling | Blending, sink: MaskSink | Output, journal: Journal, pace: Pace
) -> tuple[Progress, int]:
    """How far a segmentation is before it goes on, and how many tiles or slabs it will record in the journal."""
    if isinstance(way, Blending):
        return windows.outlook(scan, network, way, sink, journal, pace)
    return tiles.outlook(scan, network, way, sink, journal, pace)
