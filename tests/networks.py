"""Small untrained networks that between them meet every layer rule and every fallback."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn


class BatchNormCNN(nn.Module):
    """Convolutions with BatchNorm, a max-pool, changes in place by function and by module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu_(self.bn1(self.conv1(x))), 2)
        x = self.bn2(self.conv2(x))
        x += 0.1
        return self.fc(self.relu(x).mean((2, 3)))


class GroupedDilatedNet(nn.Module):
    """Groups, dilation, strides, string and reflected padding, GroupNorm, and a Conv1d tail."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, (3, 5), stride=(1, 2), padding=(2, 1), dilation=(2, 1))
        self.norm = nn.GroupNorm(2, 8)
        self.conv2 = nn.Conv2d(8, 12, 3, groups=4, padding="same")
        self.conv3 = nn.Conv2d(12, 12, 3, groups=12, padding=1, padding_mode="reflect")
        self.conv4 = nn.Conv1d(12, 10, 4, stride=3, padding=2, dilation=2, groups=2)
        self.fc = nn.Linear(10, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.conv1(x)))
        x = F.gelu(self.conv3(F.gelu(self.conv2(x))))
        return self.fc(F.silu(self.conv4(x.flatten(2))).mean(2))


class LayerUsedTwice(nn.Module):
    """One convolution called twice, one Linear weight shared by two modules, one used once more by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.conv(torch.tanh(self.conv(torch.tanh(self.stem(x)))))).mean((2, 3))
        x = torch.tanh(self.b(torch.tanh(self.a(x))))
        return self.fc(torch.tanh(F.linear(torch.tanh(self.c(x)), self.c.weight)))


class Wave(nn.Module):
    """A layer no rule knows: a sin(w x) + b sum of its neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.amplitude, self.frequency = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.inner = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.amplitude * torch.sin(self.frequency * x) + self.inner(x) * self.amplitude.mean()


class UnknownLayer(nn.Module):
    """A custom layer with bare parameters and a child, between known layers; an unused auxiliary head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wave, self.fc = nn.Conv2d(3, 6, 3), Wave(6), nn.Linear(6, 5)
        self.auxiliary = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.wave(F.relu(self.conv(x)).mean((2, 3))))


class Tokens(nn.Module):
    """Embeddings of quantised patches, positions and a class token: bare parameters and integer inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.embed, self.place = nn.Embedding(9, 8, padding_idx=0), nn.Embedding(16, 8)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        index = F.adaptive_avg_pool2d(x, 4).mean(1).mul(4).round().long().clamp(-4, 4).add(4).flatten(1)
        places = torch.arange(16, device=x.device).expand(len(x), -1)
        tokens = self.embed(index) * torch.tanh(self.place(places))
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        return self.fc(torch.tanh(self.norm(tokens)).mean(1))


def timm_vit() -> nn.Module:
    """A vision transformer with qkv as one Linear and LayerNorms of timm's own type."""
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=5
    )


def torchvision_vit() -> nn.Module:
    """A vision transformer on nn.MultiheadAttention: bare in_proj, and an out_proj that is never called."""
    network = torchvision.models.VisionTransformer(16, 4, 2, 3, 24, 48, num_classes=5)
    nn.init.normal_(network.heads.head.weight)
    return network


class SmallResNet(torchvision.models.ResNet):
    """torchvision's ResNet with one basic block a stage, of ``width`` to 8 ``width`` channels; its own has 64."""

    def __init__(self, classes: int = 5, width: int = 32) -> None:
        self.width = width
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=classes)
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")  # as its own
        self.fc = nn.Linear(8 * width, classes)

    def _make_layer(self, block: type[nn.Module], planes: int, *blocks: int, **settings: Any) -> nn.Sequential:
        if planes == 64:
            self.inplanes = self.width
        return super()._make_layer(block, planes * self.width // 64, *blocks, **settings)


NETWORKS = {
    "BatchNorm CNN": BatchNormCNN,
    "grouped and dilated": GroupedDilatedNet,
    "layer used twice": LayerUsedTwice,
    "timm ViT": timm_vit,
    "torchvision ViT": torchvision_vit,
    "unknown layer": UnknownLayer,
    "tokens": Tokens,
    "ResNet": SmallResNet,
}
#: The same layers, narrower: where their widths are not what is tested.
NARROW = {"narrow ResNet" if name == "ResNet" else name: make for name, make in NETWORKS.items()}
NARROW["narrow ResNet"] = partial(SmallResNet, width=8)
#: The parameters of each that no rule differentiates, by name: another one would cost every user time, without a word.
WITHOUT_RULE: dict[str, set[str]] = {
    "BatchNorm CNN": set(),
    "grouped and dilated": set(),
    "layer used twice": {"c.weight"},
    "timm ViT": {"cls_token", "pos_embed"},
    "torchvision ViT": {
        "class_token",
        "encoder.pos_embedding",
        *(
            f"encoder.layers.encoder_layer_{block}.self_attention.{name}"
            for block in range(2)
            for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        ),
    },
    "unknown layer": {"wave.amplitude", "wave.frequency"},
    "tokens": {"token"},
    "ResNet": set(),
}
SIZE = 16


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The seeded network called ``name``, in eval mode, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = (NETWORKS | NARROW)[name]().to(dtype).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network


def copies(images: int = 3, number: int = 4, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Inputs (images, number, 3, 16, 16): a clean image and noisy copies of it, quite far away to make them matter."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(images, 1, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    noise = torch.randn(images, number, 3, SIZE, SIZE, generator=generator, dtype=torch.float64) * 0.3
    noise[:, 0] = 0
    return (clean + noise).to(dtype)
