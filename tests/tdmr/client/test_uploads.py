"""A large file whose beginning is answered, and the answer lost."""

from __future__ import annotations

from pathlib import Path

from benchmarks.served import Running
from benchmarks.uploads.cuts import archive
from tests.tdmr.client.conftest import Ask
from tests.tdmr.client.misbehaving import hands_on, misbehaving


def test_it_is_begun_once(server: Running, ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "noise.zip"
    path.write_bytes(archive(1, 3))
    real, lost = hands_on(server.address), hands_on(server.address, lost=True)
    parts = server.data / "storage" / "parts"
    before = len([*parts.glob("*")])
    with misbehaving(lost, lost, *[real] * 4) as line:
        found = ask(
            line.address,
            lambda client: client.upload_dataset(path, resumable_from=0),
            server.key,
        )
    assert found.upload_bytes == path.stat().st_size
    assert [asked.method for asked in line.asked[:4]] == ["POST", "POST", "POST", "PATCH"]
    assert len({*line.header("Idempotency-Key")[:3]}) == 1
    assert None not in line.header("Idempotency-Key")[:3]
    assert len([*parts.glob("*")]) == before + 1
