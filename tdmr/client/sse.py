"""Server-sent events, as they come off the wire (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Sent:
    """One event: its type, its data, and the last id that the stream has named."""

    type: str
    data: str
    id: str


class Parser:
    """Takes bytes as they come, in any pieces, and gives the events that they complete."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._text = ""
        self._id, self._type = "", ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Sent]:
        """The events that are complete now."""
        # A line may end in CR, LF or both; a CR at the end waits for the LF that may follow.
        self._text += self._decode(chunk)
        held = "\r" if self._text.endswith("\r") else ""
        text = self._text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        self._text = rest + held
        for line in lines:
            if line:
                self._field(line)
            else:
                yield from self._dispatch()

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")  # a comment has no name
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> Iterator[Sent]:
        data, type_ = self._data, self._type
        self._data, self._type = [], ""
        if data:
            yield Sent(type_ or "message", "\n".join(data), self._id)
