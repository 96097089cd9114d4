"""glibc's heap in a process of many threads that runs for months.

By default threads get heaps of their own (8 for each core), and what one has freed in a heap isn't
used by others: a server grows for hours though what it holds doesn't. Little is lost: the
interpreter's lock lets hardly two threads allocate at once anyway.
"""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8  # of glibc's malloc.h


def share() -> None:
    """Have all threads share one heap; to be called before there are any.

    Does nothing where the C library isn't glibc.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
