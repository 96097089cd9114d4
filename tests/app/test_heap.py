"""All threads of a server allocate from one heap."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, threading
{}
gate = threading.Barrier(9)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def allocate():
    gate.wait()
    libc.malloc(1000)  # without the interpreter's lock: at once
    gate.wait()

for _ in range(8):
    threading.Thread(target=allocate).start()
gate.wait()
gate.wait()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize("shared", [True, False])
def test_threads_share_a_heap(shared: bool) -> None:
    first = "from app import heap; heap.share()" if shared else ""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first)], capture_output=True, text=True, check=True
    )
    assert (ran.stdout.count("<heap nr=") == 1) is shared
