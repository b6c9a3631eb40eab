"""Modules that are ready to use as ``problem.module``, by their names.

They are here to try the kind ``torch``, and to compare with: each is the network of the
problem of that name, its parameters in the same order.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn


def mlp(
    shape: tuple[int, ...], classes: int, hidden: tuple[int, ...] = (64,)
) -> nn.Module:
    """Return fully connected layers with max(0, z) between them."""
    widths = [math.prod(shape), *hidden, classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def lenet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return two convolutions, pooled, and three fully connected layers."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * (height // 4) * (width // 4), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


class Block(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut without parameters.

    Where the block halves the image, the shortcut takes every second row and column,
    and channels of zeros are added behind (K. He et al., "Deep residual learning for
    image recognition", arXiv:1512.03385, section 4.2, option A).
    """

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.norm_one = nn.BatchNorm2d(channels)
        self.two = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_two = nn.BatchNorm2d(channels)
        self.stride = stride
        self.added = channels - before

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return the next layer's input, given this one's."""
        inner = torch.relu(self.norm_one(self.one(h)))
        inner = self.norm_two(self.two(inner))
        if self.added:
            h = h[:, :, :: self.stride, :: self.stride]
            h = nn.functional.pad(h, (0, 0, 0, 0, 0, self.added))
        return torch.relu(inner + h)


def resnet20(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return ResNet-20 for small images (He et al. 2016, section 4.2)."""
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
    ]
    before = 16
    for channels in (16, 32, 64):
        for number in range(3):
            stride = 2 if number == 0 and channels > 16 else 1
            layers.append(Block(before, channels, stride))
            before = channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    return nn.Sequential(*layers)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "lenet": lenet,
    "resnet20": resnet20,
}
"""Every ready module by its name."""
