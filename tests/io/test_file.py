"""Files in archives; what would harm or cost much is refused (see also `bad_inputs`)."""

import zipfile
from importlib import import_module

import pytest
from limits import cheap, refusal

from pathology_screen.errors import ConfigError, InputError
from pathology_screen.io import file


def write_zip(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in members:
            out.writestr(name, content)
    return path


def test_files_at_any_depth_without_hidden_ones(tmp_path):
    contents = {"b/ü/2": "two", "a": "one", "b/.x": "", "__MACOSX/m": "", "./c": "three"}
    with file.open_archive(write_zip(tmp_path / "a.zip", contents.items())) as files:
        read = {member.name: member.open("rb").read() for member in files}
    assert read == {"a": b"one", "2": b"two", "c": b"three"}


def test_only_of_the_packages_of_dicom_it_is_said_that_they_are_missing():
    for module, error in (("pydicom.absent", ConfigError), ("absent", ModuleNotFoundError)):
        with pytest.raises(error), file.dicom_packages():
            import_module(module)


LEAVING = ["../x", "a/../../x", "/etc/x", "C:\\x", "C:x", "\\\\host\\x", "..\\x", "a\\..\\x"]
LONG = ["a/" * 32_000 + "x", "a/" * 70 + "x", "x" * 5000, "a/" * 100]
METHODS = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
MANY_DEEP = [(f"{number}/" + "abcdefgh/" * 60 + "x", b"") for number in range(2000)]
REFUSED = {
    **{f"leaving {name!r}": ([("good", b""), (name, b"")], "leads out") for name in LEAVING},
    **{f"path of {len(name)}": ([(name, b"")], "too long or too deep") for name in LONG},
    **{f"method {n}": ([("a", bytes(50 * 2**20))], "Pack.*deflate", n) for n in METHODS},
    "two of one path": ([("a", b"1"), ("a", b"2")], "the same path"),
    "folders above many deep members, which are not listed": (MANY_DEEP, "the file is empty"),
}
"""What is wrong -> the members, what the refusal says, and how they are packed."""


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_would_harm_or_cost_much(tmp_path, case):
    members, message, *method = case
    path = write_zip(tmp_path / "s.zip", members, *method)
    with cheap():
        error = refusal(path)
    assert error.code == ("unreadable" if members is MANY_DEEP else "unsafe_archive")
    with pytest.raises(InputError, match=message):
        raise error


@pytest.mark.parametrize("limit", ["MAX_MEMBERS", "MAX_BYTES"])
def test_limits(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(file, limit, 1)
    path = write_zip(tmp_path / "a.zip", [("a", b"12"), ("b", b"34")])
    assert refusal(path).code == "unsafe_archive"
