import hashlib
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pathology_screen.files import replacing, sha256


@pytest.fixture
def path(tmp_path) -> Path:
    """A file that holds "old", alone in its folder."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/result.json").write_text("old")
    return tmp_path / "deep/result.json"


def alone(path: Path) -> bool:
    return list(path.parent.iterdir()) == [path]


def test_the_old_content_stays_until_the_new_is_whole(path, tmp_path):
    with replacing(path) as first, replacing(path) as second:  # two at once: the last one wins
        first.write_text("first")
        second.write_text("second")
        assert path.read_text() == "old" and first != second and first.parent == path.parent
    assert path.read_text() == "first" and alone(path)
    with replacing(tmp_path / "new/deep/result.json") as temporary:
        temporary.write_text("new")
        assert alone(temporary)
    assert (tmp_path / "new/deep/result.json").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_folder_as_it_was(error, path):
    for name in (path, path.with_name("other.json")):
        with pytest.raises(error), replacing(name) as temporary:
            temporary.write_text("ha")
            raise error
    assert path.read_text() == "old" and alone(path)


def test_a_killed_writer_leaves_the_old_content_and_a_hidden_file_at_most(path):
    code = (
        "import os, sys; from pathology_screen.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('ha'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_text() == "old"
    assert [file for file in path.parent.iterdir() if not file.name.startswith(".")] == [path]


def test_a_reader_never_sees_half_a_file(path):
    whole = [letter * 100_000 for letter in "abcd"]
    path.write_text(whole[0])

    def write(text):
        for _ in range(5):
            with replacing(path) as temporary:
                temporary.write_text(text)

    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(write, text) for text in whole]
        while not all(job.done() for job in jobs):
            assert path.read_text() in whole
        for job in jobs:
            job.result()
    assert alone(path)


def test_writers_that_go_by_the_suffix_see_it_and_the_umask_says_who_may_read(path):
    before = os.umask(0o027)
    try:
        for suffix in (".nii.gz", ".png", ".json", ""):
            with replacing(path.with_name(f"sub-1_T1w{suffix}")) as temporary:
                assert temporary.name.endswith(suffix) and temporary.name.startswith(".")
    finally:
        os.umask(before)
    mode = stat.S_IMODE(path.with_name("sub-1_T1w.png").stat().st_mode)
    assert mode == 0o640 or os.name != "posix"


def test_sha256_is_that_of_the_bytes(path):
    for content in (b"", b"abc" * 100_000):
        path.write_bytes(content)
        assert sha256(path) == sha256(str(path)) == hashlib.sha256(content).hexdigest()
