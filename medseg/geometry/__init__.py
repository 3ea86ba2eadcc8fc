"""Boxes, footprints and tiles: integers only."""

from medseg.geometry.box import Box
from medseg.geometry.footprint import Field, Footprint
from medseg.geometry.tiling import Tile, Tiling
from medseg.geometry.walk import Walk

__all__ = ["Box", "Field", "Footprint", "Tile", "Tiling", "Walk"]
