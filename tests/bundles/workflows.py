"""Workflows of the bundles with narrow networks on slices of 64 pixels."""

from monai.bundle import ConfigWorkflow

from pathology_screen.bundles import bundle_root

_VAE = {"network_def#channels": [8, 8, 8, 8], "network_def#latent": 4}
_INTROSPECTIVE = _VAE | {"warm_up": 1, "val_interval": 1}
NARROW = {
    name: {"slice#size": 64, **options}
    for name, options in {
        "ra": _INTROSPECTIVE,
        "si_vae": _INTROSPECTIVE,
        "vae": _VAE,
        "ae_s": {"network_def#channels": [8, 8, 8]},
        "dae": {"network_def#channels": [4, 8]},
        "mkd": {"network_def#width": 8},
    }.items()
}


def make_workflow(name, *files, run_id, narrow=True, **overrides):
    """An initialized workflow of a bundle's configurations, with overrides."""
    options = (NARROW[name] if narrow else {}) | overrides
    if files[0] == "inference":
        options = {key: options[key] for key in options if key not in ("warm_up", "val_interval")}
    configs = bundle_root(name) / "configs"
    made = ConfigWorkflow(
        config_file=[str(configs / f"{file}.json") for file in files],
        meta_file=str(configs / "metadata.json"),
        workflow_type="infer" if files[0] == "inference" else "train",
        run_id=run_id,
        **options,
    )
    made.initialize()
    return made
