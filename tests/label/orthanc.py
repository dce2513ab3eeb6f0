"""Servers of other programs, asked through curl; and a real Orthanc with DICOMweb in a network
namespace of its own, where nothing but loopback is."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START, STOP = 600.0, 60.0  # seconds, for a busy machine


class Server:
    """A server that runs; `inside` stands before a command so that it runs where the server can be
    reached."""

    def __init__(self, url: str, inside: Sequence[str] = ()) -> None:
        self.url, self.inside = url, list(inside)

    def ask(self, method: str, path: str, *options: str) -> tuple[int, bytes]:
        """Status and body of the answer to a request, 0 where there is none; options are curl's."""
        curl = [*self.inside, "curl", "-s", "-S", "--noproxy", "*", "-X", method]
        command = [*curl, "-w", "%{http_code}", *options, self.url + path]
        answer = subprocess.run(command, capture_output=True).stdout
        return int(answer[-3:] or 0), answer[:-3]

    def get(self, path: str, method: str = "GET", *options: str) -> bytes:
        status, body = self.ask(method, path, *options)
        assert status == 200, (method, path, status, body[:2000])
        return body

    def json(self, path: str, method: str = "GET", *options: str) -> Any:
        return json.loads(self.get(path, method, *options))

    @contextmanager
    def running(self, process: subprocess.Popen, ready: str, log: Path) -> Iterator[None]:
        """Wait until the process answers at the path `ready`, and end it at last."""
        try:
            deadline = time.monotonic() + START
            while self.ask("GET", ready)[0] != 200:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(STOP)


def what_is_missing() -> str | None:
    """Why Orthanc cannot be run here, in words; None where it can."""
    if not shutil.which("Orthanc") or not PLUGIN.is_file():
        return "Orthanc with DICOMweb is not installed: apt-get install orthanc orthanc-dicomweb"
    unshared = subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0
    if not shutil.which("nsenter") or not unshared:
        return "network namespaces cannot be made here: it takes root, unshare and nsenter"
    return None


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Server]:
    """Run Orthanc on an empty store in a folder; loopback alone reaches it."""
    folder.mkdir(parents=True)
    settings = {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": 8042,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    start = f"ip link set lo up && exec Orthanc {folder / 'orthanc.json'}"
    with (folder / "log").open("w") as log:
        command = ["unshare", "-n", "sh", "-c", start]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        inside = ["nsenter", f"--net=/proc/{process.pid}/ns/net"]
        server = Server("http://127.0.0.1:8042", inside)
        with server.running(process, "/system", folder / "log"):
            yield server
