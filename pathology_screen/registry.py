"""The one list of methods: commands, documentation and tests read it. It imports neither torch nor MONAI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A method of unsupervised pathology screening.

    Attributes:
        name: of the method and its bundle.
        title: for people.
        paper: where it was published.
        network: dotted path of its network's class.
    """

    name: str
    title: str
    paper: str
    network: str


METHODS = {
    method.name: method
    for method in (
        Method(
            name="ra",
            title="Reversed Autoencoder",
            paper="Bercea, Wiestler, Rueckert, Schnabel: Generalizing Unsupervised Anomaly Detection (MIDL 2023)",
            network="pathology_screen.networks.introspective_vae.IntrospectiveVAE",
        ),
    )
}
