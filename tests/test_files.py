import hashlib
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pathology_screen.files import replacing, sha256


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "deep" / "result.json"
    with replacing(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == path.parent
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_folder_as_it_was(error, tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("ha")
        raise error
    with pytest.raises(error), replacing(tmp_path / "other.json") as temporary:
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_content_and_a_hidden_file_at_most(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    code = (
        "import os, sys; from pathology_screen.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('ha'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_text() == "old"
    assert [file for file in tmp_path.iterdir() if not file.name.startswith(".")] == [path]


def test_two_writers_at_once_leave_the_file_of_the_last(tmp_path):
    path = tmp_path / "result.json"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "result.txt"
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
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".nii.gz", ".png", ".json", ""])
def test_writers_that_go_by_the_suffix_see_it(suffix, tmp_path):
    with replacing(tmp_path / f"sub-1_T1w{suffix}") as temporary:
        assert temporary.name.endswith(suffix) and temporary.name.startswith(".")
        temporary.write_bytes(b"x")
    assert (tmp_path / f"sub-1_T1w{suffix}").read_bytes() == b"x"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_file_may_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "result.json") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == 0o640


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    (tmp_path / "empty").write_bytes(b"")
    assert (
        sha256(str(tmp_path / "empty"))
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
