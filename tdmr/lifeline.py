"""The lifeline of a process that must not outlive the one that started it.

The parent holds the write end of a pipe that is this process's standard input, and never writes.
However the parent dies, the kernel closes that end; the end of file is the news of its death.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

VARIABLE = "TDMR_LIFELINE"


def end_group() -> None:
    """Kill this process and, when it leads a process group, all that it has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def hold(on_death: Callable[[], None] = end_group) -> None:
    """Call `on_death` once the parent is dead; does nothing unless TDMR_LIFELINE is 1.

    To be called first thing, before anything slow is imported.
    """
    if os.environ.get(VARIABLE) == "1":
        threading.Thread(target=_watch, args=(on_death,), name="lifeline", daemon=True).start()


def _watch(on_death: Callable[[], None]) -> None:
    while os.read(0, 4096):
        pass
    on_death()
