"""A stand-in for S3 in its own process: moto's server, which answers one request after the other."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_REQUEST = re.compile(r'"(\w+) (\S+) HTTP')


@dataclass
class Bucket:
    """A bucket, and a folder in it.

    Attributes:
        address: the server's.
        log: the file to which the server writes its requests.
        folder: what the URI names, below ``clray``.
    """

    address: str
    log: Path
    folder: str = "store"
    read: int = 0

    @property
    def uri(self) -> str:
        """The URI of the folder, with keys that are no secret."""
        options = f"scheme=http&endpoint_override={self.address.removeprefix('http://')}&region=us-east-1"
        return f"s3://key:secret@bucket/clray/{self.folder}?{options}"

    def requests(self) -> list[str]:
        """The requests since the last call, as ``PUT claims/ID.json``."""
        text = self.log.read_text()
        new, self.read = text[self.read :], len(text)
        return [f"{verb} {path.removeprefix(f'/bucket/clray/{self.folder}/')}" for verb, path in _REQUEST.findall(new)]


@contextmanager
def serve(folder: Path) -> Iterator[Bucket]:
    """Run the server, and make a bucket; ``folder`` takes its log."""
    log = folder / "s3.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
        )
    try:
        assert server.stdout is not None
        port = next((line.split()[1] for line in server.stdout if line.startswith("PORT ")), "")
        assert port, log.read_text()
        made = Bucket(f"http://127.0.0.1:{port}", log)
        urllib.request.urlopen(urllib.request.Request(f"{made.address}/bucket", method="PUT")).close()
        yield made
    finally:
        server.kill()
        server.communicate()


def _main() -> None:
    import threading

    from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[attr-defined]
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    print("PORT", server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # until whoever started it ends


if __name__ == "__main__":
    _main()
