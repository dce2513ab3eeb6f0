"""A network from the registry and a bundle's settings."""

import pytest

from pathology_screen.bundles import PROFILES, read_settings
from pathology_screen.errors import ConfigError
from pathology_screen.networks.build import build_network
from pathology_screen.registry import METHODS

DEFINITION = {"_target_": METHODS["ra"].network, "size": 32, "channels": [8, 16], "latent": 4, "norm": "group"}


@pytest.mark.parametrize("name", ["ra", "si_vae", "vae", "ae_s", "dae"])
def test_every_bundle_builds_with_the_parameters_of_the_registry(name):
    network = build_network(name, read_settings(name, PROFILES["compact"])["network_def"])
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == METHODS[name].parameters["compact"]


def test_what_is_wrong_is_said():
    with pytest.raises(ConfigError, match="no method 'gan'"):
        build_network("gan", DEFINITION)
    with pytest.raises(ConfigError, match=r"not os\.system"):
        build_network("ra", DEFINITION | {"_target_": "os.system"})
    with pytest.raises(ConfigError, match="arguments of IntrospectiveVAE are wrong: .*depth"):
        build_network("ra", DEFINITION | {"depth": 3})
