"""Forms with files (multipart/form-data, RFC 7578), of a body that is in memory and bounded.

The body is cut at its boundary and nothing else: no part is decoded, and none goes to disk.
"""

from __future__ import annotations

import re
from email.message import Message
from email.parser import BytesHeaderParser

from app.errors import BadRequestError

HEAD_BYTES = 8192  # of one part's headers
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


def parts(content_type: str, body: bytes, most: int) -> list[tuple[str, bytes]] | None:
    """The fields of a form in order, by name; None when there are more than `most`.

    Raises BadRequestError for what isn't a form, or not a whole one.
    """
    boundary = _boundary(content_type)
    pieces = body.split(b"\r\n--" + boundary, most)
    opening = b"--" + boundary
    if not pieces[0].startswith(opening):
        raise _broken("it doesn't begin with its boundary")
    pieces[0] = pieces[0].removeprefix(opening)
    if pieces[-1].startswith(b"--"):
        return [_part(piece) for piece in pieces[:-1]]
    if len(pieces) > most:
        return None
    raise _broken("it has no end")


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["Content-Type"] = content_type
    found = header.get_param("boundary")
    if not isinstance(found, str) or not _BOUNDARY.fullmatch(found):
        raise _broken("its Content-Type names no boundary")
    return found.encode()


def _part(piece: bytes) -> tuple[str, bytes]:
    """A part's name and content."""
    padding, _, rest = piece.partition(b"\r\n")
    head, gap, content = rest.partition(b"\r\n\r\n")
    if padding.strip(b" \t") or not gap or len(head) > HEAD_BYTES:
        raise _broken("a part has no headers, or too many")
    headers = BytesHeaderParser().parsebytes(head)
    name = headers.get_param("name", header="Content-Disposition")
    if headers.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise _broken("a part has no name")
    return name, content


def _broken(reason: str) -> BadRequestError:
    return BadRequestError(f"The body isn't multipart/form-data: {reason}.")
