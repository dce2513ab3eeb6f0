"""Weights that come back, and files that hold none."""

import pytest
import torch
from torch import nn

from pathology_screen.errors import ArtifactError
from pathology_screen.networks.weights import load_weights

DAMAGED = "damaged or holds more"


def test_weights_come_back(tmp_path):
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    assert torch.equal(load_weights(second, tmp_path / "model.pt").weight, first.weight)
    assert load_weights(second, None) is second


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no weights model\.pt in the folder weights"),
        *((content, DAMAGED) for content in (b"", b"PK\x03\x04 cut", b"none at all")),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (nn.Linear(3, 2), DAMAGED),
        (nn.Linear(2, 2).state_dict(), "does not fit Linear"),
        ({"weight": torch.zeros(2, 3)}, "does not fit Linear"),
        ([1, 2], "does not fit Linear"),
    ],
)
def test_what_holds_no_weights_that_fit_is_refused(content, message, tmp_path):
    path = tmp_path / "weights" / "model.pt"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ArtifactError, match=message) as refusal:
        load_weights(nn.Linear(3, 2), path)
    assert str(tmp_path) not in str(refusal.value)
