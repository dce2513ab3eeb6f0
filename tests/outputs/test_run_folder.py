"""A folder of results is written by one run at a time, of one setting."""

import subprocess
import sys

import pytest

from pathology_screen.errors import RunError
from pathology_screen.outputs.run_folder import Manifest, locked


def test_a_manifest_that_cannot_be_read_is_no_reason_to_mix_results(tmp_path):
    for text in ("{", "[]", '{"settings": {}, "inputs": {"a": []}}', "[" * 100_000):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=r"run.json .* cannot be read"):
            Manifest(tmp_path, {}, {})


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from pathology_screen.outputs.run_folder import Manifest, locked\n"
        "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another run is writing"), locked(tmp_path):
            pass
        process.kill()
        process.wait()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
