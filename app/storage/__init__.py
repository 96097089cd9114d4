"""Stored files: one interface, kept in a local folder or in an object store.

The local folder is written by ourselves: obstore's own doesn't fsync files and their folders, and
what `put` has returned must outlive a power cut.
"""

from app.storage.interface import CHUNK, Storage, Stored, Writer
from app.storage.local import LocalStorage
from app.storage.opening import open_storage
from app.storage.parts import Part

__all__ = ["CHUNK", "LocalStorage", "Part", "Storage", "Stored", "Writer", "open_storage"]
