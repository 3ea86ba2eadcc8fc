"""A picture as the two files that MLflow's grid of pictures shows: whole, and small."""

from __future__ import annotations

import io
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medseg.tracking.names import clean

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = (384, 768)
"""Pixels along the longer side of the small copy, at least and at most: all that the grid shows until it is clicked."""


def picture_key(path: str) -> str:
    """A picture's name, of the letters that MLflow takes there."""
    return re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", clean(path))


def picture_files(image: NDArray[Any] | Image, key: str, step: int) -> dict[str, bytes]:
    """Both files by their places among the artifacts, the whole one first; these have a number of their own.

    Args:
        image: (H, W, 3) or (H, W) uint8, or a Pillow image.
        key: see :func:`picture_key`.
        step: the training step.
    """
    from PIL import Image as Pillow

    whole = Pillow.fromarray(np.asarray(image)) if isinstance(image, np.ndarray) else image
    small = whole.resize(_fitted(whole.size))
    now = int(time.time() * 1000)
    stem = f"images/{key.replace('/', '~')}+step+{step}+timestamp+{now}+{uuid.uuid4()}"
    return {
        f"{stem}.png": _encoded(whole, "PNG", compress_level=1),
        f"{stem}+compressed.webp": _encoded(small, "WEBP", method=0),
    }


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    """A picture's size (width, height), its longer side within :data:`THUMBNAIL`."""
    least, most = THUMBNAIL
    scale = min(max(max(size), least), most) / max(size)
    width, height = (max(round(n * scale), 1) for n in size)
    return width, height


def _encoded(image: Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
