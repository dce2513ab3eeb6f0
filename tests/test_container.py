"""The recipes of the container: what they copy, install and start; built and run where that can
be."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import pytest
from template_brains import template_brain

ROOT = Path(__file__).resolve().parents[1]
IMAGE = "pathology-screen:test"


def instructions() -> list[tuple[str, list[str]]]:
    """Of the Dockerfile: instruction, and its words."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not any(line.endswith("\\") for line in lines)
    return [(line.split()[0], shlex.split(line)[1:]) for line in lines]


def of(name: str) -> list[list[str]]:
    return [words for instruction, words in instructions() if instruction == name]


def sections() -> dict[str, list[str]]:
    """Of the Apptainer recipe: section -> its lines; the header is ""."""
    parts = re.split(r"^%(\w+)$", (ROOT / "apptainer.def").read_text(), flags=re.MULTILINE)
    named = dict(zip(["", *parts[1::2]], parts[::2]))
    return {
        name: [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
        for name, text in named.items()
    }


def test_what_is_installed_is_copied_and_exists():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    carried = config["options"]["package_dir"].strip().splitlines()
    needed = {"setup.cfg", "setup.py", "pyproject.toml", "LICENSE", "pathology_screen"}
    needed |= {line.partition(" = ")[2] for line in carried}
    needed.add(config["metadata"]["long_description"].removeprefix("file: "))
    copied = {source for words in of("COPY") for source in words[:-1]}
    assert copied == needed and all((ROOT / name).exists() for name in copied)
    for *sources, place in of("COPY"):
        assert place == "/src/" or [place] == [f"/src/{name}" for name in sources]
    (extras,) = (word for words in of("RUN") for word in words if word.startswith("/src["))
    assert extras[5:-1] in config["options.extras_require"]
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not copied & {*ignored} and ".git" in ignored  # else the context is the whole history


def test_the_image_starts_the_command_and_not_as_root():
    assert of("ENTRYPOINT") == [["[pathology-screen]"]]
    (user,) = of("USER")
    assert int(user[0].partition(":")[0]) > 0
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    settings = dict(word.split("=", 1) for words in of("ENV") for word in words)
    written = [settings["HOME"], settings["MPLCONFIGDIR"], of("WORKDIR")[0][0]]
    assert all(place.startswith("/tmp") for place in written)  # all else may be read-only


def test_both_recipes_are_one():
    made = sections()
    assert f"From: {of('FROM')[0][0]}" in made[""]
    assert [shlex.split(line) for line in made["post"]] == of("RUN")
    assert [line.split() for line in made["files"]] == of("COPY")
    assert made["runscript"] == ['exec pathology-screen "$@"']


def docker_missing() -> str | None:
    """Why no image can be built here; None where it can."""
    if not shutil.which("docker"):
        return "docker is not installed"
    asked = subprocess.run(["docker", "info"], capture_output=True, text=True)
    return asked.stderr.strip() or "docker info fails" if asked.returncode else None


@pytest.mark.slow
def test_the_image_screens_without_network_root_and_a_place_to_write(tmp_path):
    if reason := docker_missing():
        pytest.skip(reason)
    subprocess.run(["docker", "build", "-q", "-t", IMAGE, ROOT], check=True)
    scan = tmp_path / "in/sub-01/anat/sub-01_T1w.nii.gz"
    scan.parent.mkdir(parents=True)
    nib.save(template_brain(), scan)
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    shut = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp"]
    folders = ["-v", f"{tmp_path / 'in'}:/in:ro", "-v", f"{tmp_path / 'out'}:/out"]
    command = ["bids", "/in", "/out", "participant", "--skip-bids-validation"]
    done = subprocess.run(
        ["docker", "run", *shut, *folders, IMAGE, *command], capture_output=True, text=True
    )
    record = json.loads((tmp_path / "out/sub-01/anat/sub-01_screening.json").read_text())
    assert (done.returncode, record["code"]) == (3, "other_domain"), done.stderr
