"""Send DICOM files to an archive over DICOMweb (STOW-RS)."""

import os
import secrets
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

from pathology_screen.errors import ConfigError, RunError

AUTHORIZATION = "PATHOLOGY_SCREEN_DICOMWEB_AUTHORIZATION"
"""Variable of the environment with the value of the header Authorization, where one is needed."""
TIMEOUT = 60.0
"""Seconds for which the archive may be silent."""


def check_url(url: str) -> None:
    """Raise ConfigError unless this is the address of a DICOMweb service."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no address like https://HOST/dicom-web")


def store(files: Sequence[Path], url: str) -> None:
    """Send DICOM objects in one request to a DICOMweb service, past any proxy. RunError unless the
    archive answers that it has stored all of them (status 200); OSError if it cannot be reached."""
    parts, boundary = urlsplit(url), secrets.token_hex(16)
    start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(start + file.read_bytes() + b"\r\n" for file in files)
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    if AUTHORIZATION in os.environ:
        headers["Authorization"] = os.environ[AUTHORIZATION]
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.netloc.rpartition("@")[2], timeout=TIMEOUT)
    try:
        path = f"{parts.path.rstrip('/')}/studies"
        connection.request("POST", path, body + f"--{boundary}--\r\n".encode(), headers)
        status = connection.getresponse().status
    except HTTPException as error:
        raise RunError(f"the archive broke off: {type(error).__name__}") from error
    finally:
        connection.close()
    if status != 200:
        raise RunError(f"the archive did not store all objects: it answered {status}")
