import pickle

import pytest
import torch
from released_checkpoint_builder import released_state
from torch import nn
from torch.nn import functional as F

from pathology_screen.errors import ArtifactError
from pathology_screen.networks.introspective_vae import IntrospectiveVAE
from pathology_screen.networks.released_checkpoint import (
    NETWORK,
    convert_released_state,
    import_checkpoint,
)


def released_reconstruction(state, x):
    """Run the released layers straight from their state dict, BatchNorm in evaluation mode."""

    def conv(y, key, padding=0):
        return F.conv2d(y, state[f"{key}.weight"], state.get(f"{key}.bias"), padding=padding)

    def norm(y, key):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(y, *(state[f"{key}.{name}"] for name in names), eps=1e-5)

    def block(y, key):
        skip = conv(y, f"{key}.conv_expand") if f"{key}.conv_expand.weight" in state else y
        h = F.leaky_relu(norm(conv(y, f"{key}.conv1", 1), f"{key}.bn1"), 0.2)
        return F.leaky_relu(norm(conv(h, f"{key}.conv2", 1), f"{key}.bn2") + skip, 0.2)

    def linear(y, key):
        return F.linear(y, state[f"{key}.weight"], state[f"{key}.bias"])

    y = F.leaky_relu(norm(conv(x, "encoder.main.0", 2), "encoder.main.1"), 0.2)
    y = F.avg_pool2d(y, 2)
    for resolution in (64, 32, 16, 8):
        y = F.avg_pool2d(block(y, f"encoder.main.res_in_{resolution}"), 2)
    mean = linear(block(y, "encoder.main.res_in_4").flatten(1), "encoder.fc")[:, :128]
    y = F.relu(linear(mean, "decoder.fc.0")).reshape(-1, 512, 4, 4)
    for resolution in (4, 8, 16, 32, 64):
        y = F.interpolate(block(y, f"decoder.main.res_in_{resolution}"), scale_factor=2)
    y = block(y, "decoder.main.res_in_128")
    return torch.sigmoid(conv(y, "decoder.main.predict", 2))


def test_imported_weights_reconstruct_as_the_released_network_does(tmp_path):
    state = released_state()
    torch.save({"model_weights": state, "epoch": 3}, tmp_path / "best_model.pt")
    import_checkpoint(tmp_path / "best_model.pt", tmp_path)
    network = IntrospectiveVAE(**NETWORK).eval()
    network.load_state_dict(torch.load(tmp_path / "model.pt"))
    x = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = released_reconstruction(state, x)
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3


@pytest.mark.needs_shared
def test_key_names_are_those_of_the_released_checkpoints(shared_data):
    table = shared_data.parent / "reference/ra_checkpoint_keys.csv"
    rows = [line.split(",") for line in table.read_text().split()[1:]]
    shapes = {k: () if s == "scalar" else tuple(map(int, s.split("x"))) for k, s, _ in rows}
    assert {key: tuple(value.shape) for key, value in released_state().items()} == shapes


class Payload:
    def __reduce__(self):
        return (nn.Identity, ())


def test_what_is_no_released_checkpoint_is_refused(tmp_path):
    state, one = released_state(), torch.zeros(1)
    without = {key: value for key, value in state.items() if key != "encoder.fc.bias"}
    for wrong, message in (
        (without, "encoder.fc.bias"),
        (state | {"surprise": one}, "surprise"),
        (state | {"encoder.main.1.bias": one}, "shapes of encoder.main.1 do not agree"),
        (state | {"epoch": 3}, "no state dict"),
    ):
        with pytest.raises(ArtifactError, match=message):
            convert_released_state(wrong)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"model_weights": Payload()}))
    with pytest.raises(ArtifactError, match="holds more"):
        import_checkpoint(tmp_path / "evil.pt", tmp_path)
