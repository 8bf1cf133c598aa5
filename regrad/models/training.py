"""A plain recipe to train a small classifier, for the demo, the examples and the paper's tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

#: Epoch from 1, images of it that were seen, their mean loss.
Report = Callable[[int, int, float], None]


def train_network(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    epochs: int = 3,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    report: Report | None = None,
) -> None:
    """Minimise the cross entropy of ``network`` by AdamW with a one-cycle learning rate; ends in eval mode.

    Args:
        network: its parameters are trained where they are.
        inputs: what the network receives, (n, channels, H, W).
        labels: class indices, int64 (n,).
        seed: of the order of the images; the initial weights are the network's own.
        report: called after each step.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(inputs) // batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(2, steps))
    network.train()
    for epoch in range(epochs):
        done, total = 0, 0.0
        for batch in torch.randperm(len(inputs), generator=generator).split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(inputs[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            done += len(batch)
            total += float(loss.detach()) * len(batch)
            if report is not None:
                report(epoch + 1, done, total / done)
    network.eval()


@contextmanager
def progress(title: str, epochs: int, images: int) -> Iterator[Report]:
    """What :func:`train_network` reports to: a progress bar on a terminal, else a line after each epoch; on stderr."""
    with tqdm(desc=title, total=epochs * images, unit=" images", unit_scale=True, disable=None) as bar:

        def report(epoch: int, done: int, loss: float) -> None:
            told = f"epoch {epoch}/{epochs}, loss {loss:.4f}"
            bar.set_postfix_str(told, refresh=False)
            bar.update((epoch - 1) * images + done - bar.n)
            if bar.disable and done == images:
                print(f"{title}: {told}", file=sys.stderr, flush=True)

        yield report


@torch.no_grad()
def share_right(network: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """The share of ``inputs`` whose largest logit is at their label; ``network`` in eval mode."""
    right = sum(
        int((network(x).argmax(1) == y).sum())
        for x, y in zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
    )
    return right / len(inputs)
