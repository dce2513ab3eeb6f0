import stat
import zipfile

import pytest

from pathology_screen.errors import InputError
from pathology_screen.io import archive
from pathology_screen.io.archive import open_archive


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, content in members:
            out.writestr(name, content)
    return path


def test_files_at_any_depth_without_hidden_ones(tmp_path):
    members = [
        ("b/ü/2", b"two"),
        ("a", b"one"),
        ("b/.x", b""),
        ("__MACOSX/a", b""),
        ("./c", b"three"),
    ]
    with open_archive(write_zip(tmp_path / "a.zip", members)) as files:
        contents = {file.name: file.open("rb").read() for file in files}
    assert contents == {"a": b"one", "2": b"two", "c": b"three"}


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "C:\\x", "C:x", "\\\\host\\x", "..\\x", "a\\..\\x"],
    ids=repr,
)
def test_paths_that_leave_the_archive_are_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", [("good", b""), (name, b"")])
    with pytest.raises(InputError, match="unsafe_archive"), open_archive(path):
        pass


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with (
        pytest.raises(InputError, match="unsafe_archive.*link"),
        open_archive(write_zip(tmp_path / "a.zip", [(link, b"/etc/passwd")])),
    ):
        pass


def test_two_members_of_one_path_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write_zip(tmp_path / "a.zip", [("a", b"1"), ("a", b"2")])
    with pytest.raises(InputError, match="unsafe_archive"), open_archive(path):
        pass


def test_a_bomb_is_refused_before_anything_is_unpacked(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "bomb.zip", [("zeros", b"\0" * 80 * 2**20)], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(InputError, match="unsafe_archive.*200 times"), open_archive(path):
        pass


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_BYTES"])
def test_limits(tmp_path, monkeypatch, limit):
    path = write_zip(tmp_path / "a.zip", [("a", b"12"), ("b", b"34")])
    monkeypatch.setattr(archive, limit, 1)
    with pytest.raises(InputError, match="unsafe_archive"), open_archive(path):
        pass


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"PK\x05\x06" + b"\xff" * 18])
def test_damaged_archives_are_refused(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="unreadable"), open_archive(tmp_path / "a.zip"):
        pass


def test_encrypted_archives_are_refused(tmp_path):
    data = bytearray(write_zip(tmp_path / "a.zip", [("a", b"secret")]).read_bytes())
    data[6] |= 1  # the flag in the local header, and in the central directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError, match="unreadable.*encrypted"), open_archive(tmp_path / "a.zip"):
        pass
