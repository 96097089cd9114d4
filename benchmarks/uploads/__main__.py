"""Memory under a large upload and download, and an upload cut off 200 times: `make bench-upload`.

    make bench-upload GIGABYTES=20

Needs twice the size as free space on the disk of the temporary files. Ends with a status other than
0 when the server took more than 50 MB, or when what arrived isn't what was sent. Writes
benchmarks/results/upload.json, or upload_fast.json when it was made smaller.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.machine import commit, machine, write_result
from benchmarks.served import serving
from benchmarks.uploads.cuts import archive, run
from benchmarks.uploads.memory import measure
from tdmr.client import Client

LIMIT = 50_000_000
GIGABYTES, CUTS = 20.0, 200
MEBIBYTES_OF_CUTS = 64


def main() -> None:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES)
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="on the disk to be used")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tdmr-uploads-", dir=given.folder) as folder:
        memory = measure(Path(folder), max(1, round(given.gigabytes * 1e9) >> 20))
        cut = Path(folder) / "cuts"
        cut.mkdir()
        content = archive(MEBIBYTES_OF_CUTS, given.seed)
        with serving(cut) as server, Client(server.address, server.key) as client:
            outcome = run(server, content, given.cuts, given.seed)
            status = client.wait_for_dataset(outcome.dataset_id).status
    result = {
        **memory,
        "limit_extra_bytes": LIMIT,
        "cuts": {**asdict(outcome), "bytes": len(content), "status": status},
        "command": "python -m benchmarks.uploads " + " ".join(sys.argv[1:]),
        "seed": given.seed,
        "commit": commit(),
        "machine": machine(),
    }
    console = Console()
    console.print(result)
    full = given.gigabytes >= GIGABYTES and given.cuts >= CUTS
    console.print(f"Written to {write_result('upload' if full else 'upload_fast', result)}")
    extra = [memory[f"{way}_extra_bytes"] for way in ("post", "tus", "download")]
    if max(extra) > LIMIT or not outcome.equal or status != "ready":
        console.print("[red]A bound was broken.[/red]")
        sys.exit(1)


if __name__ == "__main__":
    main()
