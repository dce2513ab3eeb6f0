"""Files that are sent to an archive arrive whole, or it is said that they did not."""

import pytest
from dicomweb_archive import running_archive

from pathology_screen.errors import ConfigError
from pathology_screen.outputs.stow import AUTHORIZATION, check_url, store


@pytest.fixture
def files(tmp_path):
    contents = (b"\0\xff\r\n--boundary\r\n", bytes(range(256)) * 100)
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    return sorted(tmp_path.iterdir())


def test_all_arrive_in_one_request_with_the_authorization_of_the_environment(files, monkeypatch):
    monkeypatch.delenv(AUTHORIZATION, raising=False)
    with running_archive() as archive:
        store(files, archive.url + "/")
        monkeypatch.setenv(AUTHORIZATION, "Bearer secret")
        store(files, archive.url.replace("127.0.0.1", "somebody@127.0.0.1"))
    assert archive.stored == [[file.read_bytes() for file in files]] * 2
    assert archive.authorizations == [None, "Bearer secret"]


@pytest.mark.parametrize("url", ["file:///etc", "archive/dicom-web", "https://", ""])
def test_what_is_no_address_is_refused(url):
    check_url("https://archive/dicom-web")
    with pytest.raises(ConfigError, match="is no address like"):
        check_url(url)
