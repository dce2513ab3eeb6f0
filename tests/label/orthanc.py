"""A real Orthanc with DICOMweb in a network namespace of its own, where nothing but loopback is."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ROOT = "http://127.0.0.1:8042"


def what_is_missing() -> str | None:
    """Why Orthanc cannot be run here, in words; None where it can."""
    if not shutil.which("Orthanc") or not PLUGIN.is_file():
        return "Orthanc with DICOMweb is not installed: apt-get install orthanc orthanc-dicomweb"
    if (
        not shutil.which("nsenter")
        or subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode
    ):
        return "network namespaces cannot be made here: it takes root, unshare and nsenter"
    return None


class Orthanc:
    """A running server.

    Attributes:
        inside: what to put before a command so that it runs where the server can be reached.
    """

    def __init__(self, process: subprocess.Popen) -> None:
        self.inside = ["nsenter", f"--net=/proc/{process.pid}/ns/net"]

    def get(self, path: str, *options: str) -> bytes:
        """The body of a resource; options are curl's."""
        curl = [*self.inside, "curl", "-s", "-S", "--fail", "--noproxy", "*", *options]
        return subprocess.run([*curl, ROOT + path], check=True, capture_output=True).stdout

    def json(self, path: str):
        return json.loads(self.get(path))

    def upload(self, files: list[Path]) -> None:
        """Store DICOM files."""
        for file in files:
            self.get("/instances", "--data-binary", f"@{file}")


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
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
        process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", start], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            orthanc = Orthanc(process)
            _wait(orthanc, process, folder / "log")
            yield orthanc
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait(orthanc: Orthanc, process: subprocess.Popen, log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:
            orthanc.get("/system")
            return
        except subprocess.CalledProcessError:
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start: {log.read_text()[-500:]}")
