"""A real receiver of webhooks on loopback, which answers as it is told."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from standardwebhooks import Webhook

NAME = "hooks.example.com"


class Message(NamedTuple):
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its webhook-id."""
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> Any:
        """The payload, by the standard's own library. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Reply:
    """What to answer; with `hold`, not before it is set."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hold: threading.Event | None = None


class Receiver:
    """Listens on loopback, notes what comes, and gives the next of its `replies`, then 204s."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.messages: list[Message] = []
        self.replies: list[Reply] = []
        self.came = threading.Condition()
        self.names: list[str | None] = []  # by TLS's server name indication
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            context.sni_callback = lambda _, name, __: self.names.append(name)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.reply(receiver.take(Message(self.path, headers, body)))

            def reply(self, reply: Reply) -> None:
                if reply.hold is not None:
                    reply.hold.wait()
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the sender has hung up

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def take(self, message: Message) -> Reply:
        """Note a message and choose its reply."""
        with self.came:
            self.messages.append(message)
            self.came.notify_all()
            return self.replies.pop(0) if self.replies else Reply()

    def wait(self, count: int) -> list[Message]:
        """The first `count` messages, once they have come."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.messages) >= count, 90)
            return self.messages[:count]

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def make_certificate(folder: Path) -> Path:
    """A new certificate for NAME with its key, in one file; it is its own authority."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "install openssl"
    path = folder / "certificate.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    what = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-days", "2"]
    made = subprocess.run(
        [openssl, "req", "-x509", *key, "-keyout", "-", *what], check=True, capture_output=True
    )
    path.write_bytes(made.stdout)
    return path
