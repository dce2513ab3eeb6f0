"""The list of methods agrees with their bundles."""

import pytest
from monai.bundle import ConfigParser

from pathology_screen.bundles import bundle_root
from pathology_screen.registry import METHODS

BUNDLES = [method.name for method in METHODS.values() if not method.is_control]


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("profile", ["compact", "paper"])
def test_registry_counts_the_parameters_of_each_profile(name, profile):
    files = ["train.json", "paper.json"][: 1 + (profile == "paper")]
    configs = [bundle_root(name) / "configs" / file for file in files]
    parser = ConfigParser(ConfigParser.load_config_files(configs))
    if name == "mkd":  # torchvision's VGG-16 may be absent; it has no trained part
        parser["network_def"]["teacher"] = "st_vgg16"
    network, method = parser.get_parsed_content("network_def"), METHODS[name]
    assert f"{type(network).__module__}.{type(network).__name__}" == method.network
    assert sum(one.numel() for one in network.parameters()) == method.parameters[profile]
