"""Build a method's network and its inferer from the registry and its bundle's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from monai.inferers import Inferer, SimpleInferer
from torch import nn

from pathology_screen.errors import ConfigError, ScreeningError
from pathology_screen.networks.restoration import Restoration
from pathology_screen.registry import METHODS

INFERERS = {"SimpleInferer": SimpleInferer, f"{Restoration.__module__}.{Restoration.__name__}": Restoration}
"""`_target_` of `inferer` in a bundle's configuration -> its class."""


@contextmanager
def checked(name: str) -> Iterator[None]:
    """Say of whatever is raised where a class or function is called with arguments from a file that these are wrong.

    Raises:
        ConfigError: then; errors that this package raises on purpose are left as they are.
    """
    try:
        yield
    except ScreeningError:
        raise
    except Exception as error:
        raise ConfigError(f"the arguments of {name} are wrong: {str(error) or type(error).__name__}") from error


def build_inferer(definition: Mapping[str, Any]) -> Inferer:
    """Build what applies a network to slices.

    Args:
        definition: `inferer` of a bundle: the arguments, beside `_target_`, a name of `INFERERS`.

    Raises:
        ConfigError: if the definition names another class or has wrong arguments.
    """
    arguments = dict(definition)
    target = arguments.pop("_target_", None)
    if not isinstance(target, str) or target not in INFERERS:
        raise ConfigError(f"the inferer is one of {', '.join(INFERERS)}, not {target}")
    with checked(target):
        return INFERERS[target](**arguments)


def build_network(method: str, definition: Mapping[str, Any]) -> nn.Module:
    """Build the network of a method, with random weights.

    Args:
        method: its name in the registry.
        definition: `network_def` of its bundle: the arguments, beside `_target_`, which must be the registry's class.

    Raises:
        ConfigError: if the method is unknown, or the definition is of another class or has wrong arguments.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}; the methods are {', '.join(METHODS)}")
    arguments = dict(definition)
    target, known = arguments.pop("_target_", None), METHODS[method].network
    if target != known:
        raise ConfigError(f"the network of {method} is {known}, not {target}")
    module, _, name = known.rpartition(".")
    with checked(name):
        return getattr(import_module(module), name)(**arguments)
