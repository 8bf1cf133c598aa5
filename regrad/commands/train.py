"""Train a small classifier on labelled shards and write its weights as safetensors.

    regrad train mnist-train.parquet --model regrad.networks:mnist_cnn --output mnist-cnn.safetensors

A recipe for examples and for the paper's tables (AdamW, one-cycle learning rate, no augmentation), seeded: the same
command gives the same weights on the same machine. All images are held in memory.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from regrad import storage
from regrad.cli import Parser, add_common, loading, run_command
from regrad.settings.kinds import AT_LEAST_0, AT_LEAST_1, POSITIVE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, train)


def train(arguments: Sequence[str]) -> int:
    """Read, fit, write."""
    args = parser().parse_args(arguments)

    with loading():
        import safetensors.torch
        import torch

        from regrad.classifier import Classifier
        from regrad.models.training import progress, share_right, train_network
        from regrad.reading.memory import load_labelled

    torch.manual_seed(args.seed)  # the factory draws the initial weights
    classifier = Classifier.load(args.model)
    images, labels = load_labelled(args.inputs, classifier, args.limit)
    inputs = classifier.normalize(images)
    with progress("training", args.epochs, len(inputs)) as report:
        train_network(
            classifier.network, inputs, labels, args.epochs, args.batch_size, args.learning_rate, args.seed, report
        )
    storage.write_atomically(args.output, safetensors.torch.save(classifier.network.state_dict()))
    sample = slice(0, 10_000)
    share = share_right(classifier.network, inputs[sample], labels[sample])
    print(f"{share:.2%} right of the first {len(inputs[sample])} training images; wrote {storage.mask(args.output)}")
    return 0


def parser() -> Parser:
    """Its flags."""
    flags = Parser("train", __doc__, "INPUT ... --model SPEC --output URI [--FLAG ...]")
    most, run = flags.groups("run")
    most.add_argument("inputs", nargs="+", metavar="INPUT", help="labelled shards or folders, as for `regrad score`")
    most.add_argument("--model", required=True, metavar="SPEC", help="package.module:factory of the untrained network")
    most.add_argument("--output", required=True, metavar="URI", help="where the weights go (.safetensors)")
    most.add_argument(
        "--epochs", type=AT_LEAST_1, default=3, metavar="N", help="passes over the images (default: %(default)s)"
    )
    most.add_argument("--limit", type=AT_LEAST_1, metavar="N", help="train on the first so many images only")
    run.add_argument(
        "--batch-size", type=AT_LEAST_1, default=64, metavar="N", help="images per step (default: %(default)s)"
    )
    run.add_argument(
        "--learning-rate", type=POSITIVE, default=1e-3, metavar="X", help="its maximum (default: %(default)s)"
    )
    run.add_argument(
        "--seed", type=AT_LEAST_0, default=0, metavar="N", help="of weights and order (default: %(default)s)"
    )
    add_common(run)
    return flags
