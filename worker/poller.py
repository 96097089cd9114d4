"""The doorbell that needs no other service: ask the ledger again and again."""

from __future__ import annotations

import time

from worker.station import Station

SLICE_SECONDS = 0.2  # how soon a sleeping poller hears that it should stop


def poll(station: Station, *, once: bool = False) -> None:
    """Run whatever is due until the station stops; with `once`, until nothing is due."""
    station.open()
    try:
        station.drain()
        while not (once or station.stopping):
            _sleep(station, station.settings.poll_seconds)
            station.drain()
    finally:
        station.close()


def _sleep(station: Station, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not station.stopping and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, SLICE_SECONDS))
