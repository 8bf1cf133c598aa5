"""Train a small classifier on labelled shards and write its weights as safetensors.

    python jobs/train.py mnist-train.parquet --model regrad.networks:mnist_cnn --output mnist-cnn.safetensors

A recipe for examples and for the paper's tables (AdamW, one-cycle learning rate, no augmentation), seeded: the same
command gives the same weights on the same machine. All images are held in memory.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import safetensors.torch
import torch

from regrad import Classifier, storage
from regrad.cli import Parser, run_job
from regrad.models.training import accuracy, fit, progress
from regrad.reading.memory import load_labelled


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    return run_job(lambda: train(parse(argv)), verbose="--verbose" in (sys.argv if argv is None else argv))


def train(args: argparse.Namespace) -> int:
    """Read, fit, write."""
    torch.manual_seed(args.seed)  # the factory draws the initial weights
    classifier = Classifier.load(args.model)
    images, labels = load_labelled(args.inputs, classifier, args.limit)
    inputs = classifier.normalize(images)
    with progress("training", args.epochs, len(inputs)) as report:
        fit(classifier.network, inputs, labels, args.epochs, args.batch_size, args.learning_rate, args.seed, report)
    storage.write_atomically(args.output, safetensors.torch.save(classifier.network.state_dict()))
    sample = slice(0, 10_000)
    share = accuracy(classifier.network, inputs[sample], labels[sample])
    print(f"{share:.2%} right of the first {len(inputs[sample])} training images; wrote {storage.mask(args.output)}")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line.

    Raises:
        UsageError: it does not parse.
    """
    parser = Parser(prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="labelled shards or folders, as for jobs/score.py")
    parser.add_argument(
        "--model", required=True, metavar="SPEC", help="package.module:factory of the untrained network"
    )
    parser.add_argument("--output", required=True, metavar="URI", help="where the weights go (.safetensors)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the images (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="images per step (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="its maximum (default %(default)s)")
    parser.add_argument("--limit", type=int, help="train on the first so many images only")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)
