import pytest
import torch
from torch import nn

from pathology_screen.errors import ArtifactError
from pathology_screen.networks.weights import load_weights


def test_weights_come_back(tmp_path):
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    assert torch.equal(load_weights(second, tmp_path / "model.pt").weight, first.weight)
    assert load_weights(second, None) is second


@pytest.mark.parametrize(
    "content", [nn.Linear(2, 2).state_dict(), {"weight": torch.zeros(2, 3)}, [1, 2]]
)
def test_what_does_not_fit_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ArtifactError, match="does not fit Linear"):
        load_weights(nn.Linear(3, 2), tmp_path / "model.pt")


def test_missing_damaged_and_pickled_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no weights"):
        load_weights(nn.Linear(3, 2), tmp_path / "model.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut")
    torch.save(nn.Linear(3, 2), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("no weights at all")
    for name in ("cut.pt", "module.pt", "text.pt"):
        with pytest.raises(ArtifactError, match="damaged or holds more"):
            load_weights(nn.Linear(3, 2), tmp_path / name)


def test_weights_that_are_a_pointer(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12\n")
    with pytest.raises(ArtifactError, match=r"model\.pt is a pointer of Git LFS.*git lfs pull"):
        load_weights(nn.Linear(3, 2), path)
