"""DAE, the U-Net that removes coarse noise (Kascenas et al., Denoising autoencoders for
unsupervised anomaly detection in brain MRI, MIDL 2022,
https://github.com/AntanasKascenas/DenoisingAE); its noise is `synthetic.coarse_noise`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WeightStandardizedConv2d(nn.Conv2d):
    """A convolution with standardised weights in each channel (Qiao et al., 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = centred.flatten(1).std(1)[:, None, None, None]
        return self._conv_forward(x, centred / (deviation + 1e-5), self.bias)


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Build twice a 3x3 convolution with reflected borders, Swish and GroupNorm, in this order; the
    groups are the middle divisor of the channels: 64 -> 8, 128 -> 16."""
    divisors = [n for n in range(1, outputs + 1) if outputs % n == 0]
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            WeightStandardizedConv2d(channels, outputs, 3, padding=1, padding_mode="reflect"),
            nn.SiLU(),
            nn.GroupNorm(divisors[len(divisors) // 2], outputs),
        ]
    return nn.Sequential(*layers)


class DenoisingUNet(nn.Module):
    """Remove from a slice what does not look healthy; skip connections at every resolution, of so
    many channels, finest first (paper: 64, 128, 256, 512)."""

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        down, up = [1, *channels], list(reversed(channels))
        self.down = nn.ModuleList(double_convolution(a, b) for a, b in zip(down, channels[:-1]))
        self.bottom = double_convolution(channels[-2], channels[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in zip(up, up[1:]))
        self.merge = nn.ModuleList(double_convolution(2 * b, b) for b in up[1:])
        self.predict = nn.Conv2d(channels[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` without its anomalies: (B, 1, H, W) in [0, 1], sides multiples of 2 **
        (len(channels) - 1) -> the same shape, about the same range."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        return self.predict(x)
