"""Who is timed: our engines, the definition, and what others offer for the same or a smaller piece of the work.

A contender is made for a network and gives a function of copies (B, N+1, channels, H, W). To add one, write a function
here and put it in the table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from regrad.benchmarks import tf32
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.passes import GradientSettings, Passes
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from regrad.network.fold import convolution_format
from regrad.network.memory import in_pieces, inputs_kept
from regrad.precision import computing
from regrad.scorer import DEFAULT_MEMORY, MAX_INPUTS
from regrad.scores import Norms

Run = Callable[[Tensor], Any]


@dataclass(frozen=True)
class EngineRun:
    """One of our engines, ready to run.

    Attributes:
        emulated: whether its precision is one that the device lacks: it has an error, and no time worth telling.
        against: the type of what its error is measured against; None: the network's own, and float64 where the
            precision is a coarser one.
    """

    passes: Passes
    precision: str
    emulated: bool = False
    against: torch.dtype | None = None

    @torch.no_grad()
    def __call__(self, copies: Tensor) -> Any:
        """Norms and logits."""
        with computing(self.precision):
            return self.passes(lambda smoothed, part: copies[part], len(copies))

    @torch.no_grad()
    def error(self, copies: Tensor) -> Tensor:
        """See :meth:`regrad.gradients.passes.Passes.error`."""
        dtype = self.against or (None if self.precision == "float32" else torch.float64)
        with computing(self.precision), tf32.emulated() if self.emulated else nullcontext():
            return self.passes.error(lambda smoothed, part: copies[part], len(copies), dtype)


@dataclass(frozen=True)
class Contender:
    """Something that is timed beside the plain forward passes.

    Attributes:
        make: from a network, inputs to build on, and N.
        does: what it computes, if it is less than the full method; it is compared with N+1 forwards all the same.
        images: how many at once, where fewer than the case's.
        classes: pairs of class counts to run and to scale from, where there are more than the larger one and each takes
            about as long as another.
    """

    name: str
    make: Callable[[nn.Module, Tensor, int], Run]
    does: str = "all classes, layers and copies"
    images: int | None = None
    classes: tuple[int, int] | None = None


def forward(network: nn.Module, inputs: Tensor, samples: int) -> Run:
    """The plain forward passes that everything is measured against, in the memory format that is fastest.

    At most so many inputs go at once as are fastest, too.
    """
    network = convolution_format(private_copy(network))
    most = inputs_kept(network, inputs[:1])

    @torch.no_grad()
    def run(copies: Tensor) -> Tensor:
        return in_pieces(network, most, copies.flatten(0, 1))

    return run


def engine(
    name: str,
    tolerance: float = 0.0,
    directions: int = 16,
    depth_decay: float = 0.3,
    precision: str = "float32",
    against: torch.dtype | None = None,
    planned: bool = False,
    compiled: bool = False,
    power: float | None = 0.5,
) -> Any:
    """One of ours, with the smoothed and weighted norms of REGrad.

    With ``power`` None every class is differentiated as deep as any, so that each takes about as long as another.
    ``planned`` gives it the memory that a scorer has: on a GPU for classes at once, on a CPU for images side by side.
    ``compiled`` lets torch.compile have the network.
    """

    def make(network: nn.Module, inputs: Tensor, samples: int) -> Run:
        settings = GradientSettings(samples, depth_decay, name, tolerance, "modules", directions, 0)
        norms = Norms(smoothed=samples > 0, decayed=True, power=power)
        dtype = torch.bfloat16 if precision == "bfloat16" else inputs.dtype
        lacking = precision == "tf32" and inputs.device.type != "cuda"
        passes = Passes(network, [norms], inputs, settings, dtype)
        if planned:
            on_gpu = inputs.device.type == "cuda"
            memory = torch.cuda.mem_get_info(inputs.device)[0] // 2 if on_gpu else DEFAULT_MEMORY
            passes.plan_memory(memory, MAX_INPUTS[inputs.device.type])
        if compiled:
            passes.compile()
        return EngineRun(passes, precision, lacking, against)

    return make


def one_target(network: nn.Module, inputs: Tensor, samples: int) -> Run:
    """The exact engine where GradNorm alone is asked for: no class, all layers of the clean image."""
    settings = GradientSettings(0, 0.0, "exact", 0.0, "modules", 1, 0)
    run = EngineRun(
        Passes(network, [Norms(smoothed=False, decayed=False, target="uniform")], inputs, settings), "float32"
    )
    return lambda copies: run(copies[:, :1])


def reference(network: nn.Module, inputs: Tensor, samples: int) -> Run:
    """The definition in float32: one image and one class at a time."""
    layers = find_layers(private_copy(network), inputs[:3])
    weights = layer_weights(layers, 0.3)
    return ReferenceEngine(private_copy(network).to(inputs.device), layers, weights, dtype=inputs.dtype)


def functional(network: nn.Module, inputs: Tensor, samples: int) -> Run:
    """The shortest way to write it: ``jacrev``, ``vmap`` over classes, of an image's mean log-probabilities."""
    network = private_copy(network)
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def log_p(parameters: dict[str, Tensor], copies: Tensor) -> Tensor:
        return functional_call(network, parameters, (copies,)).log_softmax(1).mean(0)

    def run(copies: Tensor) -> list[Tensor]:
        rows = []
        for image in copies:
            blocks = jacrev(log_p, chunk_size=4)(parameters, image)
            rows.append(sum(block.flatten(1).square().sum(1) for block in blocks.values()))
        return rows

    return run


def grad_norm(network: nn.Module, inputs: Tensor, samples: int) -> Run:
    """pytorch-ood's GradNorm over all parameters: one backward pass an image, whatever the classes."""
    from pytorch_ood.detector import GradNorm

    detector = GradNorm(copy.deepcopy(network).eval(), param_filter=lambda name: True)
    return lambda copies: detector.predict(copies[:, 0])


def backpack_root(network: nn.Module, inputs: Tensor, samples: int) -> Run:
    """BackPACK's SqrtGGNExact: the root of every image's Fisher matrix, whose columns are sqrt(p_c) g_c."""
    import backpack
    import backpack.extensions

    network = backpack.extend(copy.deepcopy(network).eval(), use_converter=True)
    loss = backpack.extend(nn.CrossEntropyLoss(reduction="sum"))

    def run(copies: Tensor) -> None:
        x = copies[:, 0]
        with backpack.backpack(backpack.extensions.SqrtGGNExact()):
            loss(network(x), torch.zeros(len(x), dtype=torch.long, device=x.device)).backward()

    return run


def laplace_jacobians(network: nn.Module, inputs: Tensor, samples: int) -> Run:
    """laplace-torch's Jacobians of the logits, from which all class gradients of a clean image follow."""
    from laplace.curvature import CurvlinopsGGN

    backend = CurvlinopsGGN(copy.deepcopy(network).eval(), "classification")
    return lambda copies: backend.jacobians(copies[:, 0])


CONTENDERS = (
    Contender("exact 2e-3", engine("exact", 2e-3, planned=True)),
    Contender("exact 1e-3", engine("exact", 1e-3, planned=True)),
    Contender("exact 2e-4", engine("exact", 2e-4, planned=True)),
    Contender("exact 1e-3, tf32", engine("exact", 1e-3, precision="tf32", planned=True)),
    Contender("exact 1e-3, bfloat16", engine("exact", 1e-3, precision="bfloat16", planned=True)),
    Contender("exact, all layers", engine("exact", depth_decay=0.0), "the same with lambda = 0", 4, classes=(2, 6)),
    Contender("sketch 8", engine("sketch", 1e-3, 8)),
    Contender("sketch 16", engine("sketch", 1e-3, 16)),
    Contender("sketch 64", engine("sketch", 1e-3, 64), images=4),
    Contender("reference", reference, images=1, classes=(1, 3)),
    Contender("torch.func", functional, images=1, classes=(4, 8)),
    Contender("exact, GradNorm", one_target, "one gradient, clean image"),
    Contender("pytorch-ood GradNorm", grad_norm, "one gradient, clean image", images=1),
    Contender("BackPACK SqrtGGNExact", backpack_root, "all classes, clean image", images=1, classes=(2, 6)),
    Contender("laplace-torch Jacobians", laplace_jacobians, "all classes, clean", images=1, classes=(2, 6)),
)
