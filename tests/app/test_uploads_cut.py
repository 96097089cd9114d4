"""An upload cut off at random bytes, by a real connection to a real server, arrives whole.

`HYPOTHESIS_PROFILE=long` cuts 200 times, in a larger one.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.served import serving
from benchmarks.uploads.cuts import archive, run
from tdmr.client import Client

CUTS, MEBIBYTES = (200, 64) if os.environ.get("HYPOTHESIS_PROFILE") == "long" else (25, 6)
SEED = 5


def test_it_arrives_whole_however_often_it_is_cut(tmp_path: Path) -> None:
    content = archive(MEBIBYTES, SEED)
    with serving(tmp_path) as server, Client(server.address, server.key) as client:
        outcome = run(server, content, CUTS, SEED)
        assert outcome.equal
        assert 0 < outcome.kept <= outcome.sent
        assert client.wait_for_dataset(outcome.dataset_id).status == "ready"
