"""Images as every part of TDMR sees them: upright, three channels of eight bits."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, as RGB; 16-bit grey is scaled, not clipped."""
    return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB. Transparency is dropped, as Pillow's own conversion does."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        # 16-bit grey: Pillow's own conversion clips at 255 instead of scaling.
        top = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        image = Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
