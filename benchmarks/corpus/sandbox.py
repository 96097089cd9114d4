"""One upload through the door and the check, as the product does it, and what became of it.

The door is what the upload route judges by the first and last bytes; the check runs in a process of
its own, with its real limits, in a folder deep inside another one that is searched afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.datasets import formats, service
from app.models import Dataset
from app.settings import Settings
from tdmr.jobdir import JobDir

MAX_EXTRA_BYTES = 64 << 20
MAX_SECONDS = 2.0
EXPECTED = frozenset(
    {"config.json", "data", "data/upload", "progress.jsonl", "log.txt", "out", "out/report.json"}
)
RESULT = frozenset({"out/dataset.zip", "out/gallery.bin"})
# Where entries of the corpus with absolute names would land.
ROOTS = ("/", "/etc", "/tmp")  # noqa: S108 - nothing is put there, only looked for
TARGETS = tuple(Path(root, "tdmr-escaped") for root in ROOTS)
# Of the libraries that would start threads when they are loaded.
NO_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
DEPTH = "1/2/3/4/5/6/7/8"  # folders that a name can climb and still be found


@dataclass(frozen=True)
class Outcome:
    """What became of one upload.

    `codes` are those of the errors. `outside` and `left` are paths that should not be there: beyond
    the job's folder, and in it. `extra_bytes` is None when the process was killed.
    """

    at_door: bool
    ok: bool
    codes: tuple[str, ...]
    images: int
    version: str | None
    outside: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    crash: str | None = None
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    extra_bytes: int | None = 0

    def refused(self, code: str) -> bool:
        """Whether it was refused for that reason, by a check that came to its end."""
        return not self.ok and self.crash is None and code in self.codes


class Sandbox:
    """Runs uploads one by one; a context manager. `targets` are absolute names to be looked at."""

    def __init__(self, targets: Sequence[Path] = TARGETS) -> None:
        self._targets = targets

    def __enter__(self) -> Self:
        self._root = Path(tempfile.mkdtemp(prefix="tdmr-corpus-"))
        command = [sys.executable, "-m", "benchmarks.corpus.zygote"]
        self._zygote = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **NO_THREADS},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._zygote:
            assert self._zygote.stdin is not None
            self._zygote.stdin.close()
        shutil.rmtree(self._root)

    def run(self, content: bytes, *, door: bool = True, without: str | None = None) -> Outcome:
        """An upload's way through door and check; `without` names a guard of `controls`."""
        if door and not _let_in(content):
            return Outcome(True, False, ("not_an_archive",), 0, None)
        nest = self._root / DEPTH
        job, cwd = JobDir(nest / "job"), nest / "cwd"
        job.data.mkdir(parents=True)
        cwd.mkdir()
        (job.data / "upload").write_bytes(content)
        options = service.check_options(Dataset(upload_bytes=len(content)), Settings())
        job.config.write_text(options.model_dump_json())
        told = self._ask({"job": str(job.path), "cwd": str(cwd), "without": without})
        outcome = _judge(self._root, job, told, self._targets)
        for each in self._root.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        for target in self._targets:
            if target.as_posix() in outcome.outside:
                target.unlink(missing_ok=True)
        return outcome

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()
        answer: dict[str, Any] = json.loads(self._zygote.stdout.readline())
        return answer


def _let_in(content: bytes) -> bool:
    kind = formats.sniff(content[: formats.HEAD_BYTES])
    return kind is not None and formats.ends_well(kind, content[-formats.TAIL_BYTES :])


def _judge(root: Path, job: JobDir, told: dict[str, Any], targets: Sequence[Path]) -> Outcome:
    report: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        report = json.loads((job.out / "report.json").read_bytes())
    ok = bool(report.get("ok"))
    found = set(_below(job.path))
    expected = EXPECTED | RESULT if ok else EXPECTED
    crash = None
    if told["status"] or not report:
        crash = f"status {told['status']}: " + " / ".join(job.log_tail(3))
    return Outcome(
        at_door=False,
        ok=ok,
        codes=tuple(
            each["code"] for each in report.get("findings", []) if each["severity"] == "error"
        ),
        images=report.get("images", 0),
        version=report.get("version"),
        outside=tuple(sorted(_outside(root, job, targets))),
        left=tuple(sorted(found - expected)),
        crash=crash,
        cpu_seconds=told["cpu_seconds"],
        seconds=told["seconds"],
        extra_bytes=told["extra_bytes"],
    )


def _below(folder: Path) -> Iterator[str]:
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield (Path(at) / name).relative_to(folder).as_posix()


def _outside(root: Path, job: JobDir, targets: Sequence[Path]) -> Iterator[str]:
    """What lies beside the job's folder, and in the places that absolute names speak of."""
    own = {each.relative_to(root).as_posix() for each in (job.path, *job.path.parents)
           if each != root and each.is_relative_to(root)}  # fmt: skip
    nest = job.path.relative_to(root).as_posix()
    for path in _below(root):
        if path not in own and path != f"{DEPTH}/cwd" and not path.startswith(nest + "/"):
            yield path
    for target in targets:
        if target.exists():
            yield target.as_posix()
