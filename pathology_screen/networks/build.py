"""Build a method's network from the registry and its bundle's settings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from pathology_screen.errors import ConfigError
from pathology_screen.registry import METHODS


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
    try:
        return getattr(import_module(module), name)(**arguments)
    except TypeError as error:
        raise ConfigError(f"the arguments of {name} are wrong: {error}") from error
