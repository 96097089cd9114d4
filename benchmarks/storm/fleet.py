"""Workers of one arena: started, counted, replaced, and ended by what the kernel knows them by."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.storm.procs import Handle

MARK = "TDMR_STORM"  # in the environment of every process of one run
PLAIN_EACH = 10  # one worker of so many is a program of its own, not forked
ROOT = Path(__file__).parent.parent.parent
PATIENCE = 120.0  # seconds that a worker has to end when told to

_plain = subprocess.Popen[bytes]


def outside() -> dict[str, str]:
    """The environment without anything that is meant for another service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TDMR_")}


class Zygote:
    """The process that forks the others (`benchmarks.storm.zygote`)."""

    def __init__(self, mark: str) -> None:
        self.mark = {MARK: mark}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.storm.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=outside() | self.mark,
            cwd=ROOT,
            start_new_session=True,
        )
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # its end, and the end of the lifeline of all its children
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def fork(self, run: str, options: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """A new process's number."""
        request = {"run": run, "options": list(options), "env": dict(env), "log": str(log)}
        pid: int = self._ask(request)["pid"]
        return pid

    def reap(self, pid: int) -> int:
        """The exit status of a process; waits for its end."""
        status: int = self._ask({"reap": pid})["status"]
        return status

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Hand:
    """One worker process."""

    def __init__(self, handle: Handle, zygote: Zygote, plain: _plain | None) -> None:
        self.pid = handle.pid
        self.status: int | None = None  # once it has ended and was reaped
        self._handle, self._zygote, self._plain = handle, zygote, plain
        self._turn = threading.Lock()

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when the worker has ended."""
        with self._turn:
            return self.status is None and self._handle.signal(number)

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended; its status is known from then on."""
        if self.status is None and self._handle.ended(seconds):
            with self._turn:
                self._reap()
        return self.status is not None

    def stop(self) -> bool:
        """Have it hand back what it does; False when it had to be killed for that."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self.ended(PATIENCE):
            return True
        self.signal(signal.SIGKILL)
        self.ended(PATIENCE)
        return False

    def _reap(self) -> None:
        if self.status is not None:
            return
        if self._plain is None:
            self.status = self._zygote.reap(self.pid)
        else:
            self.status = self._plain.wait()
            assert self._plain.stdin is not None
            self._plain.stdin.close()
        self._handle.close()


class Fleet:
    """The workers of one arena that take the same jobs."""

    def __init__(
        self, zygote: Zygote, env: Mapping[str, str], logs: Path, *options: str, plain: bool = True
    ) -> None:
        self.hands: list[Hand] = []
        self.started = self.programs = self.wanted = 0
        self._zygote, self._logs, self._options, self._plain = zygote, logs, options, plain
        self._env = {**env, **zygote.mark}
        logs.mkdir(parents=True, exist_ok=True)

    def fork(self, run: str, options: Sequence[str], log: Path) -> int:
        """A process that isn't a worker: its number."""
        return self._zygote.fork(run, options, outside() | self._env, log)

    def start(self, **more: str) -> Hand:
        """One more worker; `more` goes into its environment."""
        self.started += 1
        log = self._logs / f"{'-'.join(('worker', *self._options))}-{self.started}.log"
        env = outside() | self._env | more
        if self._plain and self.started % PLAIN_EACH == 0:
            hand = self._program("benchmarks.storm.hand", env, log)
            self.programs += 1
        else:
            pid = self._zygote.fork("worker", self._options, env | {"TDMR_LIFELINE": "1"}, log)
            hand = Hand(Handle(pid), self._zygote, None)
        self.hands.append(hand)
        return hand

    def start_product(self) -> Hand:
        """One more worker: the product's own command, with nothing beside."""
        log = self._logs / f"product-{len(self.hands)}.log"
        hand = self._program("worker", outside() | self._env, log, "--device", "cpu")
        self.hands.append(hand)
        return hand

    def _program(self, module: str, env: Mapping[str, str], log: Path, *first: str) -> Hand:
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *first, *self._options],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env={**env, "TDMR_LIFELINE": "1"},
                cwd=ROOT,
                start_new_session=True,
            )
        return Hand(Handle(process.pid), self._zygote, process)

    def alive(self) -> dict[int, Hand]:
        """The workers that haven't ended, by number."""
        self.hands = [hand for hand in self.hands if not hand.ended()]
        return {hand.pid: hand for hand in self.hands}

    def keep(self, count: int | None = None) -> None:
        """Replace whoever has ended: there are `count`, or as many as were wanted last."""
        self.wanted = self.wanted if count is None else count
        for _ in range(self.wanted - len(self.alive())):
            self.start()

    def stop(self) -> list[str]:
        """End every worker; what had to be killed for that, for people."""
        for hand in self.hands:
            hand.signal(signal.SIGCONT)
            hand.signal(signal.SIGTERM)
        stuck = [f"worker {hand.pid} had to be killed" for hand in self.hands if not hand.stop()]
        self.hands = []
        return stuck
