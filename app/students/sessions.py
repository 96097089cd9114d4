"""Students that answer: a few of their ONNX files kept loaded, and how one is stopped."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from app.errors import NoOnnxError
from app.models import Student
from app.storage import Storage
from app.students import service
from app.students.service import StoredFile

Value = TypeVar("Value")
FORMATS = ("onnx", "int8")  # in the order in which they are preferred


class StoppedError(Exception):
    """A prediction was told to stop."""


class Stop:
    """Ends one prediction from any thread: call it."""

    def __init__(self) -> None:
        self._asked = False
        self._options: Any = None  # onnxruntime.RunOptions

    def __call__(self) -> None:
        self._asked = True
        if self._options is not None:
            self._options.terminate = True

    def reach(self, options: Any) -> None:
        """Let what runs with `options` be stopped, too. Raises StoppedError if it's too late."""
        self._options = options
        self.check()

    def check(self) -> None:
        """Raises StoppedError once it was called."""
        if self._asked:
            raise StoppedError


class _Entry(Generic[Value]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Value | None = None


class Sessions(Generic[Value]):
    """At most so many things by key, those asked for last; each is loaded once, by one thread.

    One that makes room while it is in use is gone when its last user is done.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry[Value]] = OrderedDict()

    def get(self, key: str, load: Callable[[], Value]) -> Value:
        """What is kept under `key`, or else what `load` gives. Raises what it raises."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        with entry.lock:
            if entry.value is None:
                try:
                    entry.value = load()
                except BaseException:  # the next one tries to load it again
                    self._forget(key, entry)
                    raise
            return entry.value

    def keys(self) -> list[str]:
        """What is kept, the longest unused first."""
        with self._lock:
            return list(self._entries)

    def _forget(self, key: str, entry: _Entry[Value]) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]


def onnx_file(student: Student) -> StoredFile:
    """The file that a student answers by. Raises NoOnnxError, which says why there is none."""
    exports = student.metrics.get("exports")
    if exports is None:
        raise NoOnnxError("The student was packaged before there were ONNX files. Retry its job.")
    rows = exports["formats"]
    for name in FORMATS:
        if rows.get(name, {}).get("published"):
            return service.file_of(student, rows[name]["file"])
    reasons = [f"{row['file']}: {row['reason']}." for row in map(rows.get, FORMATS) if row]
    if not reasons:
        raise NoOnnxError("Its order asked for none: options.exports.formats lacks onnx.")
    raise NoOnnxError(f"It was refused when the student was packaged. {' '.join(reasons)}")


def read(storage: Storage, file: StoredFile) -> bytes:
    """A stored file's bytes. Raises DamagedFileError where they aren't what was stored."""
    try:
        content = b"".join(storage.read(file.key, 0, file.bytes))
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise service.damaged(file)
    return content
