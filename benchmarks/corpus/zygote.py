"""Forks a process for each check: it has imported everything, so that one takes milliseconds.

`python -m benchmarks.corpus.zygote` reads one JSON request per line and answers each by one line:

{"job": JOB_DIR, "cwd": FOLDER, "without": GUARD or null}
    ->  {"status": S, "cpu_seconds": C, "seconds": T, "extra_bytes": B or null}

`extra_bytes` is how far the process's memory rose above what it was before the check (peak and
beginning of the resident set, Linux); null when the process was killed before it could say so.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from app.datasets import check
from benchmarks.corpus import controls

# What a check loads only when it meets such a file.
LATER = (
    "PIL.JpegImagePlugin",
    "PIL.MpoImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.WebPImagePlugin",
    "encodings.cp437",
    "encodings.latin_1",
    "encodings.utf_8_sig",
    "numpy",
    "pyarrow.parquet",
)


def main() -> None:
    """Serve requests until their end."""
    for name in LATER:
        importlib.import_module(name)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "a process with threads can't be forked"
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(_serve(json.loads(line))) + "\n")
        sys.stdout.flush()


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    """One check; its cost includes that of processes that it started itself."""
    told, tell = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(_be_child(request, tell))
    os.close(tell)
    with open(told, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
        said = pipe.read()
    _, status, usage = os.wait4(pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "seconds": time.monotonic() - began,
        "extra_bytes": int(said) if said else None,
    }


def _be_child(request: dict[str, Any], tell: int) -> int:
    job = Path(request["job"])
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(job / "log.txt", os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(request["cwd"])
    os.environ["TMPDIR"] = request["cwd"]
    try:
        controls.switch_off(request["without"])
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak (proc_pid_clear_refs(5))
        before = _resident("VmRSS")
        status = check.main([str(job)])
        os.write(tell, b"%d" % (_resident("VmHWM") - before))
    except BaseException:  # a crash is an outcome to be told
        traceback.print_exc()
        return 1
    return status


def _resident(field: str) -> int:
    """A figure of this process's own memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise LookupError(field)


if __name__ == "__main__":
    main()
