"""Names in archives that climb, hide or deceive."""

from __future__ import annotations

from tests.app.datasets.zips import Raw, png, with_good


def named(name: bytes, flags: int = 1 << 11) -> bytes:
    """An archive with one image of that name among good ones."""
    return with_good(Raw(name, png(9), flags=flags))


UNSAFE = {
    "parent": b"../a/9.png",
    "parent-inside": b"a/../../9.png",
    "parent-last": b"a/..",
    "parent-alone": b"..",
    "parent-folder": b"../",
    "parent-folder-inside": b"a/../b/",
    "parent-many": b"../" * 40 + b"tmp/tdmr-escaped",
    "parent-behind-dot": b"./../9.png",
    "parent-behind-slashes": b"a//..//..//9.png",
    "absolute": b"/etc/tdmr-escaped",
    "absolute-tmp": b"/tmp/tdmr-escaped",
    "absolute-root": b"/",
    "double-slash": b"//host/share/9.png",
    "drive": b"C:/9.png",
    "drive-relative": b"c:9.png",
    "drive-alone": b"Z:",
    "unc": b"\\\\host\\share\\9.png",
    "device-path": b"\\\\.\\PhysicalDrive0",
    "backslash": b"a\\9.png",
    "backslash-parent": b"..\\..\\9.png",
    "backslash-mixed": b"a/..\\9.png",
    "nul": b"a/9.png\0.txt",
    "nul-first": b"\0a/9.png",
    "newline": b"a/9\n.png",
    "carriage-return": b"a/9.png\r",
    "tab": b"a/\t9.png",
    "bell": b"a/\a9.png",
    "delete": b"a/9\x7f.png",
    "escape": b"a/\x1b[31m9.png",
    "next-line": "a/9\u0085.png".encode(),
    "long-part": b"a/" + b"x" * 300 + b".png",
    "long-folder": b"x" * 256 + b"/9.png",
    "long": b"a/" + b"/".join([b"x" * 200] * 6) + b"/9.png",
    "longest": b"x" * 65_535,
    "deep": b"a/" * 700 + b"9.png",
    "empty": b"",
    "dot": b".",
    "dot-dot-slashes": b"./.",
    "right-to-left": "a/\u202egnp.9.exe".encode(),
    "right-to-left-folder": "\u202ea/9.png".encode(),
    "left-to-right": "a/\u202d9.png".encode(),
    "embedding": "a/\u202b9.png".encode(),
    "isolate": "a/\u20679.png".encode(),
}

COLLIDING = {
    "same-name-twice": [b"a/1.png"],
    "same-folder-dotted": [b"./a/1.png"],
    "same-folder-slashes": [b"a//1.png"],
    "case": [b"a/1.PNG"],
    "case-of-folder": [b"A/9.png"],
    "normal-forms": ["a/\u00e9.png".encode(), "a/e\u0301.png".encode()],
    "normal-forms-of-folder": ["\u00e9/8.png".encode(), "e\u0301/9.png".encode()],
    "kelvin": [b"a/K.png", "a/\u212a.png".encode()],
    "angstrom": ["a/\u00c5.png".encode(), "a/\u212b.png".encode()],
    "sharp-s": ["a/stra\u00dfe.png".encode(), b"a/STRASSE.png"],
    "ligature": ["a/\ufb01.png".encode(), b"a/FI.png"],
    "zero-width": [b"a/cat.png", "a/cat\u200b.png".encode()],
    "zero-width-folder": [b"cat/8.png", "ca\u200bt/9.png".encode()],
    "byte-order-mark": [b"a/cat.png", "a/\ufeffcat.png".encode()],
    "word-joiner": [b"a/cat.png", "a/c\u2060at.png".encode()],
    "soft-hyphen": [b"a/cat.png", "a/c\u00adat.png".encode()],
    "trailing-dot": [b"a/1.png."],
    "trailing-space": [b"a/1.png "],
    "trailing-dot-of-folder": [b"a./9.png"],
    "file-and-folder": [b"a/1.png/2.png"],
    "file-called-class": [b"A"],
}


def cases() -> dict[str, tuple[bytes, str]]:
    """Each as an archive, and its code."""
    unsafe = {f"name-{key}": (named(name), "unsafe_name") for key, name in UNSAFE.items()}
    unsafe["name-old-code-page"] = named(b"..\\\x82.png", flags=0), "unsafe_name"
    colliding = {
        f"collision-{key}": (
            with_good(*(Raw(name, png(100 + n)) for n, name in enumerate(raw))),
            "name_collision",
        )
        for key, raw in COLLIDING.items()
    }
    return {**unsafe, **colliding}
