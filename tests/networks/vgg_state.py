"""The state of torchvision's VGG-16, as its file holds it."""

from pathology_screen.networks.vgg import VGG16_URL

VGG16_FILE = VGG16_URL.rpartition("/")[2]


def torchvision_state(features, factor=1.0):
    return {f"features.{name}": factor * tensor for name, tensor in features.state_dict().items()}
