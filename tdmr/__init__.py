"""TDMR: distil a frozen vision foundation model into a small student for your classes.

    import tdmr
    result = tdmr.distill("my_images/", foundation="letters_vit", student="test_resnet", out="out/")
    print(result.accuracy, result.interval, result.bundle)

Importing this package loads no torch; `distill` does, when it is called.
"""

from __future__ import annotations

from tdmr.api import Distilled, distill
from tdmr.config import DistillOptions, JobSpec
from tdmr.errors import TdmrError

__all__ = ["DistillOptions", "Distilled", "JobSpec", "TdmrError", "distill"]
__version__ = "0.1.0"
