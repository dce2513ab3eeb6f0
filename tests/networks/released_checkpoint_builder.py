"""A state dict under the key names and shapes of the checkpoints released with the RA paper."""

import torch

ENCODER = {64: (64, 128), 32: (128, 256), 16: (256, 512), 8: (512, 512), 4: (512, 512)}
DECODER = {4: (512, 512), 8: (512, 512), 16: (512, 256), 32: (256, 128)}
DECODER |= {64: (128, 64), 128: (64, 64)}
NO_PROJECTION = {"encoder.main.res_in_4", "decoder.main.res_in_4", "decoder.main.res_in_128"}


def released_state():
    """Random weights under the key names and shapes of the released checkpoints."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def conv(key, *shape):
        fan_in = shape[1] * shape[2] * shape[3]
        state[key] = torch.randn(*shape, generator=generator) / fan_in**0.5

    def norm(key, channels):
        state[f"{key}.weight"] = 1 + 0.1 * torch.randn(channels, generator=generator)
        state[f"{key}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        state[f"{key}.running_mean"] = 0.1 * torch.randn(channels, generator=generator)
        state[f"{key}.running_var"] = 0.9 + torch.rand(channels, generator=generator)
        state[f"{key}.num_batches_tracked"] = torch.tensor(1)

    conv("encoder.main.0.weight", 64, 1, 5, 5)
    norm("encoder.main.1", 64)
    for half, stages in (("encoder", ENCODER), ("decoder", DECODER)):
        for resolution, (inputs, outputs) in stages.items():
            key = f"{half}.main.res_in_{resolution}"
            if key not in NO_PROJECTION:
                conv(f"{key}.conv_expand.weight", outputs, inputs, 1, 1)
            conv(f"{key}.conv1.weight", outputs, inputs, 3, 3)
            norm(f"{key}.bn1", outputs)
            conv(f"{key}.conv2.weight", outputs, outputs, 3, 3)
            norm(f"{key}.bn2", outputs)
    state["encoder.fc.weight"] = torch.randn(256, 8192, generator=generator) / 90
    state["encoder.fc.bias"] = torch.randn(256, generator=generator)
    state["decoder.fc.0.weight"] = torch.randn(8192, 128, generator=generator) / 11
    state["decoder.fc.0.bias"] = torch.randn(8192, generator=generator)
    conv("decoder.main.predict.weight", 1, 64, 5, 5)
    state["decoder.main.predict.bias"] = torch.zeros(1)
    return state
