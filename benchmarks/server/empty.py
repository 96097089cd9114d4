"""An empty FastAPI route, served just as the service is: what the framework costs by itself."""

from __future__ import annotations

import sys
from pathlib import Path

from fastapi import FastAPI

from app import serve

bare = FastAPI(openapi_url=None)


@bare.get("/")
async def empty() -> dict[str, str]:
    """Nothing."""
    return {}


if __name__ == "__main__":
    socket = serve.listen("127.0.0.1", 0)
    ready = Path(sys.argv[1])
    serve.run(bare, socket, lambda: serve.write_ready_file(ready, serve.address_of(socket), None))
