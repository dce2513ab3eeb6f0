"""Real MONAI Label servers for the tests, and a bundle that is small enough to train in them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import torch
from orthanc import Server

from pathology_screen.bundles import bundle_root, read_settings
from pathology_screen.calibration import calibrate
from pathology_screen.predictor import Predictor, build_network

ACROSS = 2e-3
"""Relative difference of scores of a registered scan between the two environments: voxels and brain
mask are equal to the bit, but with another numpy (1.26 in place of 2.4) the search for its place
ends 0.01 mm away; within one nothing differs."""

RATE = 0.25
"""Of false positives, that four people allow."""

SMALL = {"ra": {"channels": [8, 8], "latent": 8}, "dae": {"channels": [4, 8]}, "mkd": {"width": 8}}
NO_SCORING = {"MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
"""For servers whose worklist is not asked for: each scoring is a process that loads everything."""


def label_python() -> str | None:
    """The interpreter of the environment that MONAI Label lives in; None where it is not named."""
    return os.environ.get("PATHOLOGY_SCREEN_LABEL_PYTHON")


class LabelServer(Server):
    """MONAI Label, which runs."""

    def infer(self, model: str, image: str, output: str, **params: Any) -> bytes:
        """The answer of `/infer/`; `output` is "image", "json", "all" or "dicom_seg"."""
        path = f"/infer/{model}?image={image}&output={output}"
        return self.get(path, "POST", "-F", f"params={json.dumps(params)}")

    def refusal(self, model: str, image: str, **params: Any) -> tuple[int, str]:
        """Status and detail of an answer of `/infer/` that is none."""
        options = ("-F", f"params={json.dumps(params)}")
        status, body = self.ask("POST", f"/infer/{model}?image={image}&output=json", *options)
        return status, json.loads(body)["detail"]

    def next_study(self) -> dict[str, Any]:
        """What the worklist of the small bundle gives."""
        return self.json("/activelearning/tiny_most_suspicious", "POST")

    def mark(self, image: str, reading: str) -> None:
        """Say what a study shows."""
        info = json.dumps({"reading": reading})
        self.get(f"/datastore/image/info?image={image}", "PUT", "-F", f"info={info}")

    def start_training(self, **params: Any) -> str:
        """Of the small bundle; gives the id of the task."""
        options = ("-H", "Content-Type: application/json", "-d", json.dumps(params))
        return self.json("/train/tiny_healthy", "POST", *options)["id"]

    def train(self, **params: Any) -> dict[str, Any]:
        """Train the small bundle, wait for the end, and return how it went."""
        started = self.start_training(**params)
        for _ in range(3000):
            found = [one for one in self.json("/train/?all=true") if one["id"] == started][0]
            if found["status"] not in ("SUBMITTED", "RUNNING"):
                return found
            time.sleep(0.2)
        raise TimeoutError(found)


def parts(body: bytes) -> dict[str, bytes]:
    """The fields of an answer of several parts, by name."""
    boundary = body.split(b"\r\n", 1)[0]
    pieces = (piece.split(b"\r\n\r\n", 1) for piece in body.split(boundary)[1:-1])
    return {
        re.search(rb'name="([^"]+)"', head)[1].decode(): content[:-2] for head, content in pieces
    }


def nifti(content: bytes, path: Path) -> nib.Nifti1Image:
    """The image that an answer is, kept at a path."""
    path.write_bytes(content)
    return nib.load(path)


@contextmanager
def running_server(
    app: Path,
    studies: Path | str,
    log: Path,
    conf: Mapping[str, str],
    env: Mapping[str, str] | None = None,
    inside: Sequence[str] = (),
) -> Iterator[LabelServer]:
    """Run an app, ours or another, on a folder or DICOMweb address, on a free port of loopback."""
    port = 8000
    if not inside:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    start = [str(app / "main.py")]
    if "start_server" not in (app / "main.py").read_text():
        start = ["-m", "monailabel.main", "start_server", "--app", str(app), "--host", "127.0.0.1"]
    command = [*inside, label_python() or "", *start, "--studies", str(studies)]
    command += ["--port", str(port)]
    command += [word for key, value in conf.items() for word in ("--conf", key, value)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(log.parent), **(env or {})}
    with log.open("w") as out:
        streams = {"stdout": out, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **streams, env=surroundings, cwd=log.parent)
        server = LabelServer(f"http://127.0.0.1:{port}", inside)
        with server.running(process, "/info/", log):
            yield server


def make_tiny_bundle(
    folder: Path, healthy: Sequence[Path], rate: float = RATE, steps: int = 60, name="ra"
) -> Path:
    """A bundle with a network of 64 pixels and few channels, that was trained for so many steps on
    slices of healthy people and calibrated on them, and whose own rate is `rate`."""
    shutil.copytree(bundle_root(name), folder, ignore=shutil.ignore_patterns("runs", "models"))
    schedule = {"max_epochs": 8, "warm_up": 5, "val_interval": 1} if name == "ra" else {}
    for file in ("train.json", "inference.json"):
        path = folder / "configs" / file
        config = json.loads(path.read_text())
        config["network_def"] |= SMALL[name]
        config["slice"]["size"] = 64
        if name != "mkd":
            config["scoring"] = {"perceptual": "none", "equalize": False}
        own = {"rate": rate} if file == "inference.json" else schedule
        path.write_text(json.dumps(config | own))
    (folder / "models").mkdir()
    torch.manual_seed(0)
    network = build_network(name, read_settings(folder)["network_def"])
    weights = folder / "models" / "model.pt"
    torch.save(network.state_dict(), weights)
    predictor = Predictor.load(folder)
    people = [predictor.prepare({"image": path})["image"].as_tensor() for path in healthy]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(torch.stack(people)) - torch.stack(people)).square().mean().backward()
        optimizer.step()
    torch.save(network.state_dict(), weights)
    items = [{"image": image, "subject": str(person)} for person, image in enumerate(people)]
    calibrate(Predictor.load(folder), items).save(folder / "models" / "calibration.json")
    return folder
