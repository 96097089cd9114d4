"""Uploads a file with tuspy: upload.py ADDRESS KEY FILE CHUNK STORE CHECKSUM [STOP_AT].

STORE remembers where uploads are: stopped at STOP_AT bytes and started again, it goes on. Prints
what happened as JSON. A process of its own, for tuspy leaves its files open.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

address, key, file, chunk, store, checksum, *stop_at = sys.argv[1:]
client = TusClient(f"{address}/v1/uploads", headers={"Authorization": f"Bearer {key}"})
uploader = client.uploader(
    file,
    chunk_size=int(chunk),
    metadata={"filename": Path(file).name},
    store_url=True,
    url_storage=FileStorage(store),
    upload_checksum=checksum == "checksum",
)
told = {"first_offset": uploader.offset}
uploader.upload(stop_at=int(stop_at[0]) if stop_at else None)
headers = uploader.request.response_headers
print(json.dumps({**told, "url": uploader.url, "dataset": headers.get("tdmr-dataset")}))
