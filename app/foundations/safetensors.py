"""What a safetensors file says of itself, read strictly: nothing in it is ever unpickled or run.

The format: 8 bytes with the length of a header (little-endian), the header in JSON, and the
numbers. See https://huggingface.co/docs/safetensors, section Format. Whether the tensors fit an
architecture is found out later, in a process of its own (`tdmr.check_model`).
"""

from __future__ import annotations

import json
import math
from typing import Any

from app.errors import NotSafetensorsError

WHAT = "a safetensors file"
MAX_HEADER = 1 << 20
LENGTH_BYTES = 8
MAX_DIMENSIONS, MAX_DIMENSION = 16, 1 << 48
SHOWN = 80  # characters of a name
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
CONVERT = (
    "Load them where you trust them, and save them with "
    "safetensors.torch.save_file(model.state_dict(), FILE)."
)
PICKLED = "PyTorch's own format, which is loaded with pickle: it could run any code here."
# First bytes of what is uploaded by mistake.
OTHERS = (
    (b"PK\x03\x04", f"a zip archive, such as a .pt, .pth or .pt2 file of torch.save: {PICKLED}"),
    (b"\x80", f"a pickle, such as an old .pt, .pth or .bin file: {PICKLED}"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as a .h5 of Keras."),
    (b"\x1f\x8b", "packed with gzip."),
    (b"GGUF", "a GGUF file."),
)


class Reader:
    """Reads the header as the bytes come, and counts the rest (`app.api.uploads.Judge`)."""

    what = WHAT

    def __init__(self) -> None:
        self._head = bytearray()
        self._bytes = 0
        self._length: int | None = None  # of the whole file, once the header is read

    def take(self, block: bytes) -> None:
        """Look at the next bytes. Raises NotSafetensorsError as soon as that shows."""
        self._bytes += len(block)
        if self._length is None:
            self._head += block
            self._read()
        if self._length is not None and self._bytes > self._length:
            raise _refused("There are more bytes than its header tells of.", _AGAIN)

    def end(self) -> None:
        """All bytes have come. Raises NotSafetensorsError for a file that is cut off."""
        if self._length is None:
            short = _refused("It ends before its header does.", _AGAIN)
            raise short if len(self._head) > LENGTH_BYTES else _another(bytes(self._head), short)
        if self._bytes < self._length:
            missing = self._length - self._bytes
            raise _refused(f"It is cut off: {missing:,} bytes are missing.", _AGAIN)

    def _read(self) -> None:
        if len(self._head) <= LENGTH_BYTES:
            return
        size = int.from_bytes(self._head[:LENGTH_BYTES], "little")
        if size > MAX_HEADER or self._head[LENGTH_BYTES:][:1] != b"{":
            said = "Its header isn't a JSON object."
            if size > MAX_HEADER:
                said = f"Its header would have {size:,} bytes, and may have {MAX_HEADER:,}."
            raise _another(bytes(self._head[:LENGTH_BYTES]), _refused(said, CONVERT))
        behind = LENGTH_BYTES + size
        if len(self._head) < behind:
            return
        self._length = behind + numbers(bytes(self._head[LENGTH_BYTES:behind]))
        self._head.clear()


def _another(start: bytes, otherwise: NotSafetensorsError) -> NotSafetensorsError:
    """What to say of a file whose first bytes aren't a header's length.

    They are asked last: a length can begin as a pickle does.
    """
    for first, kind in OTHERS:
        if start.startswith(first):
            return _refused(f"It is {kind}", CONVERT)
    return otherwise


def numbers(header: bytes) -> int:
    """How many bytes of numbers a header tells of. Raises NotSafetensorsError for a wrong one."""
    try:
        found = json.loads(header, object_pairs_hook=_once, parse_constant=_never)
    except (ValueError, RecursionError) as error:
        raise _refused(f"Its header isn't JSON: {str(error)[:SHOWN]}.", _AGAIN) from error
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _refused("Its __metadata__ isn't text by name.", _AGAIN)
    if not found:
        raise _refused("It holds no tensor.", _AGAIN)
    end = 0
    for start, stop, name in sorted(_span(name, each) for name, each in found.items()):
        if start != end:
            what = "overlaps the one before it" if start < end else "leaves a gap before it"
            raise _refused(f"Tensor {_shown(name)} {what}.", _AGAIN)
        end = stop
    return end


def _span(name: str, tensor: Any) -> tuple[int, int, str]:
    """Where a tensor's numbers lie: as many as its shape says, and nothing else."""
    if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
        raise _refused(f"Tensor {_shown(name)} isn't dtype, shape and data_offsets.", _AGAIN)
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        known = ", ".join(SIZES)
        raise _refused(f"Tensor {_shown(name)} has a dtype other than {known}.", CONVERT)
    if not _counts(shape, MAX_DIMENSIONS) or not _counts(offsets, 2) or len(offsets) != 2:
        raise _refused(f"Tensor {_shown(name)} has a shape or offsets that can't be.", _AGAIN)
    start, stop = offsets
    if stop - start != math.prod(shape) * SIZES[dtype]:
        raise _refused(f"Tensor {_shown(name)} has another length than its shape says.", _AGAIN)
    return start, stop, name


def _counts(values: Any, most: int) -> bool:
    """Whether it's a list of at most `most` whole numbers, none of them monstrous."""
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value <= MAX_DIMENSION for value in values)
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has a name twice")
    return found


def _never(constant: str) -> Any:
    raise ValueError(f"{constant} isn't a JSON value")


def _shown(name: str) -> str:
    return ascii(name[:SHOWN])


_AGAIN = "Save it again with safetensors.torch.save_file, and send all of it."


def _refused(detail: str, advice: str) -> NotSafetensorsError:
    return NotSafetensorsError(f"The body isn't {WHAT}. {detail} {advice}")
