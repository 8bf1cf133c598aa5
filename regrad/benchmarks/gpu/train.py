"""(a) ResNet-18 on CIFAR-10 in minutes, so that the other parts have a network that knows something."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from regrad.benchmarks.gpu import networks, pack
from regrad.benchmarks.gpu.bench import Bench

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY, PADDING = 30, 512, 0.4, 5e-4, 4
SHARE = 0.8  # of the time, for the steps
SHARD_BYTES = 15_000_000
NAME = "resnet18-cifar10"
_TIMED = 10  # steps, behind as many that warm up


def train(bench: Bench) -> Iterator[dict[str, Any]]:
    """As many epochs as the time allows, at most 30: SGD with momentum under bfloat16, crops and flips.

    Gives ``epoch``, ``loss`` and ``seconds`` as it goes; then ``accuracy`` on the test images and ``weights``.
    """
    if bench.images is None:
        yield {"skipped": "no --images: the other parts have random weights"}
        return
    device, started = torch.device(bench.device), time.monotonic()
    _, known = networks.small_resnet18()
    pixels, labels = _on(device, pack.read_pictures(bench.images, "train"), known)
    yield {"images": len(labels), "reading": round(time.monotonic() - started, 2)}
    batch = min(BATCH, len(labels) // 2)
    steps = len(labels) // batch
    # The steps are timed on a network that is thrown away: the schedule must know how many there will be.
    step, _ = _training(bench, device, steps=2 * _TIMED)
    for number in range(2 * _TIMED):
        if number == _TIMED:
            _wait(device)
            timed = time.monotonic()
        step(pixels[:batch], labels[:batch])
    _wait(device)
    an_epoch = (time.monotonic() - timed) / _TIMED * steps
    left = bench.seconds * SHARE - (time.monotonic() - started)
    epochs = max(1, min(EPOCHS, int(left / an_epoch)))
    step, network = _training(bench, device, epochs * steps)
    begun = time.monotonic()
    for epoch in range(epochs):
        order = torch.randperm(len(labels), device=device)[: steps * batch].view(steps, batch)
        total = torch.zeros((), device=device)
        for rows in order:
            total += step(pixels[rows], labels[rows])
        loss = float(total) / steps
        yield {"epoch": epoch + 1, "of": epochs, "loss": round(loss, 4), "seconds": round(time.monotonic() - begun, 2)}
    pixels, labels = _on(device, pack.read_pictures(bench.images, "test"), known)
    with torch.no_grad():
        right = sum(
            int((network(x).argmax(1) == y).sum()) for x, y in zip(pixels.split(500), labels.split(500), strict=True)
        )
    accuracy = right / len(labels)
    yield {"accuracy": accuracy, "test_images": len(labels), "weights": save(network, Path(bench.folder))}


def save(network: nn.Module, folder: Path, shard_bytes: int = SHARD_BYTES) -> str:
    """The weights in half precision, in files of at most ``shard_bytes``, and the index that names them: its name."""
    shards: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, value in network.state_dict().items():
        half = (value.half() if value.is_floating_point() else value).cpu().contiguous()
        held += half.numel() * half.element_size()
        if held > shard_bytes and shards[-1]:
            shards.append({})
            held = half.numel() * half.element_size()
        shards[-1][name] = half
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"{NAME}-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file)
        places |= dict.fromkeys(shard, file)
    index = folder / f"{NAME}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return index.name


def _training(bench: Bench, device: torch.device, steps: int) -> tuple[Any, nn.Module]:
    """One step of training by images and labels, which gives the loss; and the network, for whom eval mode is set."""
    torch.manual_seed(0)
    made, _ = networks.tiny_resnet() if bench.tiny else networks.small_resnet18()
    network = made.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(2, steps), pct_start=0.2)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        network.train()
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(network(_varied(images)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        network.eval()
        return loss.detach()

    return step, network


def _varied(images: Tensor) -> Tensor:
    """Each image cut out anew from a padded one, every other one mirrored."""
    number, _, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4, mode="reflect")
    top, left = torch.randint(2 * PADDING + 1, (2, number, 1), device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = torch.where(torch.rand(number, 1, device=images.device) < 0.5, columns, width - 1 - columns)
    rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
    which = torch.arange(number, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[:, None, None]
    return padded[which, channels, rows, (left + columns)[:, None, None, :]]


def _on(device: torch.device, pictures: pack.Pictures, known: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What the network receives, and the labels."""
    pixels = torch.from_numpy(pictures.pixels).to(device).movedim(3, 1).float() / 255
    mean, std = (torch.tensor(known[name], device=device)[:, None, None] for name in ("mean", "std"))
    return (pixels - mean) / std, torch.from_numpy(pictures.labels).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
