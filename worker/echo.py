"""Passes on what a job's process prints, line by line, under the ids of the worker's own lines."""

from __future__ import annotations

import structlog

from tdmr.jobdir import JobDir

PIECE_BYTES = 65_536  # of one look: a process that prints without end is heard late, not for ever
LAST_PIECES = 16
LINE_BYTES = 4096  # what is longer is cut into several

log = structlog.get_logger(__name__)


class Echo:
    """Reads a job's log.txt as it grows."""

    def __init__(self, job: JobDir) -> None:
        self._path = job.log
        self._offset = 0

    def end(self) -> None:
        """Log what is left: nothing more comes."""
        for _ in range(LAST_PIECES):
            self.listen(last=True)

    def listen(self, *, last: bool = False) -> None:
        """Log every line that is complete; with `last`, also one that isn't."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            piece = file.read(PIECE_BYTES)
        whole = len(piece) if last else piece.rfind(b"\n") + 1
        if not whole and len(piece) == PIECE_BYTES:
            whole = PIECE_BYTES
        self._offset += whole
        for line in piece[:whole].splitlines():
            for start in range(0, len(line), LINE_BYTES):
                log.info(
                    "process", line=line[start : start + LINE_BYTES].decode("utf-8", "replace")
                )
