"""The measured networks in plain PyTorch, where torchvision is not: its architectures, under its parameters' names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Known = dict[str, Any]

_CIFAR: Known = {"image_size": 32, "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_IMAGENET: Known = {"image_size": 224, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_SMALL: Known = {"image_size": 16, "mean": 0.5, "std": 0.25}


class ResidualBlock(nn.Module):
    """relu(y + shortcut x): two 3x3 convolutions, or where ``wide`` is 4 a 3x3 one between two of 1x1.

    Source: He et al., CVPR 2016.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, wide: int) -> None:
        super().__init__()
        out = channels * wide
        kernels = [(channels, 3, stride), (channels, 3, 1)]
        if wide > 1:
            kernels = [(channels, 1, 1), (channels, 3, stride), (out, 1, 1)]
        before = channels_in
        for number, (width, kernel, step) in enumerate(kernels, 1):
            setattr(self, f"conv{number}", nn.Conv2d(before, width, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(width))
            before = width
        self.layers = len(kernels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or channels_in != out:
            projection = nn.Conv2d(channels_in, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, wide * channels, H / stride, W / stride)."""
        y = x
        for number in range(1, self.layers + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = self.relu(y) if number < self.layers else y
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Four stages of :class:`ResidualBlock` behind a 7x7 stem, or behind the 3x3 one that is usual for 32x32 images."""

    def __init__(self, depths: tuple[int, ...], wide: int, classes: int, small: bool, width: int = 64) -> None:
        super().__init__()
        stem = (3, 1, 1) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(3, width, *stem, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        before = width
        for stage, depth in enumerate(depths):
            channels, blocks = width << stage, []
            for number in range(depth):
                blocks.append(ResidualBlock(before, channels, 2 if stage and not number else 1, wide))
                before = channels * wide
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class EncoderBlock(nn.Module):
    """x + attention(ln x), then the same with an MLP. Source: Dosovitskiy et al., ICLR 2021."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, width), nn.Dropout(0.0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """``depth`` blocks behind positions that are learnt."""

    def __init__(self, tokens: int, depth: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, tokens, width).normal_(std=0.02))
        named = {f"encoder_layer_{number}": EncoderBlock(width, heads, hidden) for number in range(depth)}
        self.layers = nn.Sequential()
        for name, block in named.items():
            self.layers.add_module(name, block)
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        return self.ln(self.layers(x + self.pos_embedding))


class Transformer(nn.Module):
    """Patches, a class token, an :class:`Encoder`, a Linear head."""

    def __init__(
        self, side: int, patch: int, depth: int, heads: int, width: int, hidden: int, classes: int = 1000
    ) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.encoder = Encoder((side // patch) ** 2 + 1, depth, width, heads, hidden)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1)
        return self.heads(self.encoder(tokens)[:, 0])


def small_resnet18() -> tuple[nn.Module, Known]:
    """ResNet-18 with the stem for 32x32 images."""
    return ResNet((2, 2, 2, 2), 1, 10, small=True), dict(_CIFAR)


def small_resnet18_of_100() -> tuple[nn.Module, Known]:
    """The same with 100 classes."""
    return ResNet((2, 2, 2, 2), 1, 100, small=True), dict(_CIFAR)


def plain_resnet18() -> tuple[nn.Module, Known]:
    """ResNet-18 for 224x224 images and 1,000 classes."""
    return ResNet((2, 2, 2, 2), 1, 1000, small=False), dict(_IMAGENET)


def plain_resnet50() -> tuple[nn.Module, Known]:
    """ResNet-50 for 224x224 images and 1,000 classes."""
    return ResNet((3, 4, 6, 3), 4, 1000, small=False), dict(_IMAGENET)


def plain_vit_b_16() -> tuple[nn.Module, Known]:
    """ViT-B/16 for 224x224 images and 1,000 classes."""
    return Transformer(224, 16, 12, 12, 768, 3072), dict(_IMAGENET)


def tiny_resnet() -> tuple[nn.Module, Known]:
    """A narrow ResNet for 16x16 images, for where there is no GPU."""
    return ResNet((1, 1), 1, 10, small=True, width=8), dict(_SMALL)


def tiny_vit() -> tuple[nn.Module, Known]:
    """A small transformer for 16x16 images and 40 classes, likewise."""
    return Transformer(16, 8, 2, 2, 16, 32, 40), dict(_SMALL)
