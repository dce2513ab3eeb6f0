"""A DICOMweb service that keeps what it is sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer


class Archive(HTTPServer):
    """A DICOMweb service that answers with the next of `answers`, then 200; `stored` are the parts
    of the requests that it answered with 200, `authorizations` their header of this name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.stored: list[list[bytes]] = []
        self.authorizations: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/dicom-web"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = message_from_bytes(
            f"Content-Type: {self.headers['Content-Type']}\n\n".encode() + body
        )
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200 and self.path == "/dicom-web/studies":
            parts = [part.get_payload(decode=True) for part in message.get_payload()]
            self.server.stored.append(parts)
            self.server.authorizations.append(self.headers["Authorization"])
        self.send_response(status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextmanager
def running_archive() -> Iterator[Archive]:
    with Archive() as archive:
        threading.Thread(target=archive.serve_forever, daemon=True).start()
        yield archive
        archive.shutdown()
