"""A state dict under the key names and shapes of the checkpoints released with the RA paper."""

import torch

from pathology_screen.networks import released_checkpoint
from pathology_screen.networks.introspective_vae import IntrospectiveVAE


def released_state():
    """Random weights, with statistics that every BatchNorm is folded by."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = IntrospectiveVAE(**released_checkpoint.NETWORK).state_dict()
        state = {name: ours[target] for name, target in released_checkpoint._COPIED.items()}
        for norm, target in released_checkpoint._FOLDED.items():
            channels = len(ours[f"{target}.weight"])
            for part in ("weight", "bias", "running_mean"):
                state[f"{norm}.{part}"] = (part == "weight") + 0.1 * torch.randn(channels)
            state[f"{norm}.running_var"] = 0.9 + torch.rand(channels)
            state[f"{norm}.num_batches_tracked"] = torch.tensor(1)
    return state
