"""Files in archives; what would harm or cost much is refused (see also `bad_inputs`)."""

import zipfile

import pytest

from pathology_screen.errors import InputError
from pathology_screen.io import file
from pathology_screen.io.file import open_archive


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, content in members:
            out.writestr(name, content)
    return path


def refused(path, match):
    with pytest.raises(InputError, match=match), open_archive(path):
        pass


def test_files_at_any_depth_without_hidden_ones(tmp_path):
    contents = {"b/ü/2": "two", "a": "one", "b/.x": "", "__MACOSX/a": "", "./c": "three"}
    with open_archive(write_zip(tmp_path / "a.zip", contents.items())) as files:
        read = {member.name: member.open("rb").read() for member in files}
    assert read == {"a": b"one", "2": b"two", "c": b"three"}


LEAVING = ["../x", "a/../../x", "/etc/x", "C:\\x", "C:x", "\\\\host\\x", "..\\x", "a\\..\\x"]


@pytest.mark.parametrize("name", LEAVING, ids=repr)
def test_paths_that_leave_the_archive_are_refused(tmp_path, name):
    refused(write_zip(tmp_path / "a.zip", [("good", b""), (name, b"")]), "unsafe_archive")


def test_two_members_of_one_path_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write_zip(tmp_path / "a.zip", [("a", b"1"), ("a", b"2")])
    refused(path, "unsafe_archive")


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_BYTES"])
def test_limits(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(file, limit, 1)
    refused(write_zip(tmp_path / "a.zip", [("a", b"12"), ("b", b"34")]), "unsafe_archive")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"PK\x05\x06" + b"\xff" * 18])
def test_damaged_archives_are_refused(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", "unreadable")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_than_deflation_are_refused(tmp_path, cheap_refusal, method):
    path = write_zip(tmp_path / "s.zip", [("IM0000", bytes(50 * 2**20))], method)
    error = cheap_refusal(path)
    assert error.code == "unsafe_archive" and "deflate" in error.hint


LONG = ["a/" * 32_000 + "x", "a/" * 70 + "x", "x" * 5000, "a/" * 100]


@pytest.mark.parametrize("name", LONG, ids=len)
def test_long_and_deep_paths_are_refused(tmp_path, cheap_refusal, name):
    path = write_zip(tmp_path / "s.zip", [(name, b"")])
    assert cheap_refusal(path).code == "unsafe_archive"


def test_the_folders_above_many_deep_members_are_not_listed(tmp_path, cheap_refusal):
    members = [(f"{number}/" + "abcdefgh/" * 60 + "x", b"") for number in range(2000)]
    path = write_zip(tmp_path / "s.zip", members)
    assert cheap_refusal(path).code == "unreadable"  # empty files
