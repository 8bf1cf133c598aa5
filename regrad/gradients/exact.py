"""Exact class-gradient norms of a batch: activations are differentiated once per class, parameters never.

For an image with copies x_0..x_N and a target distribution q (a class is its one-hot q),

    g_q = 1/(N+1) sum_i J_i^T (q - p_i),      ||a * g_q||^2 = sum_l a_l^2 ||g_q^(l)||^2.

The copies of an image are just more positions of a layer. With A its inputs and D_q its output gradients, one row a
position, the block of a layer y = A W^T is D_q^T A, and

    ||D_q^T A||^2 = sum (A A^T) * (D_q D_q^T)      (Gram form: A A^T is computed once for all classes), or directly.

Per class and image with n positions the Gram form costs n^2 (d_out + d_in / classes), the direct form n d_in d_out
multiplications; the cheaper one is chosen from these sizes alone. Layers that weigh nothing are run without a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regrad.gradients.layers import Layer, layer_parameters
from regrad.gradients.norms import ClassNorms
from regrad.gradients.rules import Direct, Outer, find_rule
from regrad.network import head
from regrad.network.copies import plain_attention
from regrad.network.fold import convolution_format, fold_batch_norms
from regrad.network.memory import forward_bytes, saved_for_backward

_RUN = 4096  # entries summed in float32: longer sums are less precise, and not faster
_SHORT_RUN = 16  # shorter ones are slow


@dataclass
class _Use:
    """The calls of one parameter in one forward pass: how its gradient follows from the output gradients.

    Attributes:
        factors: one for each call.
        arrived: the output gradients of the calls, as far as the backward pass has brought them.
        gram: A A^T over the positions of all calls, where the Gram form is the cheaper one.
        inputs: A, likewise, where the direct form is.
    """

    factors: list[Outer | Direct] = field(default_factory=list)
    arrived: list[Tensor | None] = field(default_factory=list)
    gram: Tensor | None = None
    inputs: list[Tensor] = field(default_factory=list)

    def prepare(self, targets: int) -> None:
        """Form what does not depend on the target, once all calls are known."""
        outer = [factor for factor in self.factors if isinstance(factor, Outer)]
        if not outer or len(outer) < len(self.factors) or not _gram_is_cheaper(outer, targets):
            self.inputs = [_inputs(factor) for factor in self.factors]
        elif len(outer) == 1 and outer[0].gram is not None:
            self.gram = outer[0].gram()
        else:
            inputs = torch.cat([factor.inputs() for factor in outer], dim=2)
            self.gram = inputs @ inputs.transpose(2, 3)

    def held(self, targets: int, copies: int) -> int:
        """How many numbers :meth:`prepare` would form for ``copies`` of an image, of which one was seen."""
        outer = [factor for factor in self.factors if isinstance(factor, Outer)]
        if outer and len(outer) == len(self.factors) and _gram_is_cheaper(outer, targets, copies):
            return outer[0].shape[0] * (copies * sum(factor.shape[1] for factor in outer)) ** 2
        return sum(math.prod(factor.shape[:3]) * copies for factor in outer if factor.gradient is None)

    def squared(self) -> Tensor | None:
        """||block||^2 for the gradients that have arrived, float64 (B,); None if none has. They are forgotten."""
        arrived, self.arrived = self.arrived, [None] * len(self.arrived)
        if all(d is None for d in arrived):
            return None
        if self.gram is not None and all(d is not None for d in arrived):
            rows = torch.cat([f.rows(d) for f, d in zip(self.factors, arrived, strict=True)], dim=2)  # type: ignore[arg-type, union-attr]
            products = self.gram * (rows @ rows.transpose(2, 3))
            return products.sum(3).sum((1, 2), dtype=torch.float64)
        gradient = sum(self._gradient(i, d) for i, d in enumerate(arrived) if d is not None)
        assert isinstance(gradient, Tensor)
        return _squared_norms(gradient)

    def _gradient(self, call: int, d: Tensor) -> Tensor:
        """The parameter's gradient from one call, one row an image."""
        factor = self.factors[call]
        if factor.gradient is not None:
            return factor.gradient(d)
        inputs = self.inputs[call] if self.inputs else factor.inputs()
        return (factor.rows(d).transpose(2, 3) @ inputs).flatten(1)


def _inputs(factor: Outer | Direct) -> Tensor:
    """A of a factor whose gradient needs it; nothing of others."""
    return torch.empty(0) if factor.gradient is not None else factor.inputs()


def _gram_is_cheaper(calls: list[Outer], targets: int, copies: int = 1) -> bool:
    _, _, d_in, d_out = calls[0].shape
    n = copies * sum(factor.shape[1] for factor in calls)
    return n * n * (d_out + d_in / targets) < n * d_in * d_out


class ExactEngine:
    """Squared class-gradient norms by one backward pass for activations per target.

    Args:
        network: a private copy (:func:`regrad.network.copies.private_copy`); the engine puts hooks on it.
        layers: from :func:`regrad.gradients.layers.find_layers`.
        weights: a_l >= 0, (S, len(layers)); a layer with weight 0 in every row is left out.
        probe: one or more inputs (B, channels, H, W) on which the layer rules are checked against autograd.
        copies: how many an image will have, for the estimate of its memory.
        targets: how many target distributions it will have, likewise; None: as many as there are classes.

    Attributes:
        bytes_per_input: memory one copy of one image takes, estimated on the probe; fixes how many go at once.
        bytes_beside: memory a call takes for any number of them.
        most_inputs: without effect: the copies of an image go together.
    """

    bytes_beside = 0
    most_inputs: int | None = None

    def __init__(
        self,
        network: nn.Module,
        layers: list[Layer],
        weights: Tensor,
        probe: Tensor,
        copies: int = 1,
        targets: int | None = None,
    ) -> None:
        self.network = network
        self.layers = layers
        weights = weights.double().cpu().reshape(-1, len(layers))
        kept = [i for i in range(len(layers)) if float(weights[:, i].max()) > 0]
        self.weights = weights.to(probe.device)
        convolution_format(network)
        fold_batch_norms(network, _users(network, [layers[i] for i in kept]), probe[:1])
        self._modules = dict(network.named_modules(remove_duplicate=False))
        self._place: dict[int, int] = {}  # id of a counted parameter -> its layer's position
        self._parameters: dict[int, nn.Parameter] = {}
        self._names: dict[int, str] = {}
        for i, group in zip(kept, layer_parameters(network, [layers[i] for i in kept]), strict=True):
            self._place |= {id(parameter): i for parameter in group}
            self._parameters |= {id(parameter): parameter for parameter in group}
            for name, parameter in zip(layers[i].parameters, group, strict=True):
                self._names[id(parameter)] = f"{layers[i].name}.{name}".lstrip(".")
        self._uses: dict[int, _Use] = {}
        self._leaves: list[Tensor] = []
        self._head: nn.Linear | None = None
        self._head_input: Tensor | None = None
        self._recording = self._checking = False
        self._plain = self._parameters_without_rule()
        last = head.find_head(network, probe[:1])
        self._watch()
        self._check(probe[:1], copies, targets)
        if last is not None:
            self._take_head(network.get_submodule(last))

    @property
    def without_rule(self) -> tuple[str, ...]:
        """Names of the counted parameters that autograd differentiates, so that images go through one at a time.

        No rule knows their layer, or the rule disagreed with autograd on the probe.
        """
        return tuple(self._names[key] for key in self._plain)

    def convert(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype`` from now on; rules have been checked in the one before."""
        self.network.to(dtype)

    def __call__(
        self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None = None, classes: bool = True
    ) -> ClassNorms:
        """Squared norms for ``copies`` (B, N+1, channels, H, W), whose first copy is the clean image.

        Args:
            copies: what the network receives.
            targets: maps clean log-probabilities (B, C) to further target distributions (B, E, C), appended to the
                classes.
            classes: False leaves the classes out, and their backward passes: the targets are all that is found.
        """
        if self._plain and len(copies) > 1:
            return ClassNorms.of_parts([self._norms(image[None], targets, classes) for image in copies])
        return self._norms(copies, targets, classes)

    def _norms(self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None, with_classes: bool) -> ClassNorms:
        images, number = copies.shape[:2]
        logits = self._forward(copies.flatten(0, 1), images)
        exact_logits = logits.detach().double().reshape(images, number, -1)
        log_p = exact_logits.log_softmax(-1)
        p = log_p.exp()
        classes = p.shape[-1]
        extra = targets(log_p[:, 0]) if targets is not None else p.new_zeros(images, 0, classes)
        wanted = range(0 if with_classes else classes, classes + extra.shape[1])
        per_layer = p.new_zeros(len(self.layers), images, len(wanted))
        if self._head is not None and self._head_input is not None:
            h = self._head_input.reshape(images, number, -1)
            squares = head.squared_norms(h, p, extra, bias=self._head_bias())
            per_layer[self._place[id(self._head.weight)]] += squares[:, wanted.start :]
        inputs = [*self._leaves, *self._plain.values()]
        if logits.requires_grad:
            for use in self._uses.values():
                use.prepare(len(wanted))
            for column, t in enumerate(wanted):
                cotangent = (_target(extra, t, p) - p) / number
                if t >= classes and cotangent.device.type == "cpu" and not cotangent.any():
                    continue  # NEGrad's on the clean image; to ask would make a GPU's host wait
                gradients = torch.autograd.grad(
                    logits, inputs, cotangent.flatten(0, 1).to(logits.dtype), retain_graph=True, allow_unused=True
                )
                for key, squares in self._squares().items():
                    per_layer[self._place[key], :, column] += squares
                for key, gradient in zip(self._plain, gradients[len(self._leaves) :], strict=True):
                    if gradient is not None:
                        per_layer[self._place[key], :, column] += gradient.double().square().sum()
        self._forget()
        return ClassNorms(torch.einsum("sl,lbt->sbt", self.weights.square(), per_layer), exact_logits)

    def _forward(self, x: Tensor, images: int) -> Tensor:
        self._forget()
        self._images, self._recording = images, True
        try:
            with torch.enable_grad(), plain_attention():
                return self.network(x)
        finally:
            self._recording = False

    def _forget(self) -> None:
        self._uses, self._leaves, self._head_input = {}, [], None

    # -- what is watched -------------------------------------------------------------------------------------------

    def _parameters_without_rule(self) -> dict[int, nn.Parameter]:
        """Counted parameters that autograd must differentiate image by image."""
        plain = dict(self._parameters)
        layer_of = {layer.name: layer for layer in self.layers}
        for name, module in self._modules.items():
            layer = layer_of.get(name)
            if layer is not None and layer.batch_major and layer.calls and _has_rule(module):
                for parameter in module.parameters(recurse=False):
                    plain.pop(id(parameter), None)
        return plain

    def _watch(self) -> None:
        """Put a hook on every module that uses a counted parameter by a rule."""
        for module in dict.fromkeys(self._modules.values()):
            own = {
                name: id(value)
                for name, value in module.named_parameters(recurse=False)
                if id(value) in self._parameters and id(value) not in self._plain
            }
            if own and _has_rule(module):
                module.register_forward_hook(self._hook(own))
        for parameter in self._plain.values():
            parameter.requires_grad_(True)

    def _hook(self, own: dict[str, int]) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            wanted = {name: key for name, key in own.items() if key not in self._plain}
            if not self._recording or not wanted:
                return None
            x = args[0].detach()
            if module is self._head:
                self._head_input = x
                return None
            if not output.requires_grad:
                leaf = output.detach().requires_grad_(True)
                self._leaves.append(leaf)
                output = leaf.clone()  # the network may change it in place, which a leaf does not allow
            factors = self._factors(module, x)
            slots = []
            for name, key in wanted.items():
                use = self._uses.setdefault(key, _Use())
                use.factors.append(factors[name])
                use.arrived.append(None)
                slots.append((use, len(use.arrived) - 1))

            def receive(gradient: Tensor) -> None:
                for use, slot in slots:
                    use.arrived[slot] = gradient

            output.register_hook(receive)
            return output

        return hook

    def _factors(self, module: nn.Module, x: Tensor) -> dict[str, Outer | Direct]:
        rule = find_rule(module)
        assert rule is not None
        if not self._checking:
            return rule(module, x, self._images)
        try:
            return rule(module, x, self._images)
        except RuntimeError:  # a subclass with other shapes: the check will leave its parameters to autograd
            return {name: Direct(lambda d: d.new_full((self._images, 1), math.nan)) for name in ("weight", "bias")}

    def _head_bias(self) -> bool:
        bias = getattr(self._head, "bias", None)
        return bias is not None and self._place.get(id(bias)) is not None

    # -- what a backward pass brought --------------------------------------------------------------------------------

    def _squares(self) -> dict[int, Tensor]:
        """||block||^2 of every watched parameter for the gradients that have just arrived: float64 (B,)."""
        found = {key: use.squared() for key, use in self._uses.items()}
        return {key: value for key, value in found.items() if value is not None}

    # -- self-check --------------------------------------------------------------------------------------------------

    def _check(self, image: Tensor, copies: int, targets: int | None) -> None:
        """Compare every rule with autograd on one input; what disagrees is left to autograd from now on.

        This also finds what no rule can see: a weight used once more by a function, a module that changes its input.
        """
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self._checking = True
        with saved_for_backward(self.network) as saved:
            logits = self._forward(image, 1)
        cotangent = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device)[None]
        targets = targets or logits.shape[1]
        parameters = list(self._parameters.values())
        for use in self._uses.values():
            use.prepare(targets)
        truth = torch.autograd.grad(logits, parameters, cotangent, retain_graph=True, allow_unused=True)
        arrived = sum(_size(d) for use in self._uses.values() for d in use.arrived if d is not None)
        held = sum(use.held(targets, copies) for use in self._uses.values()) * image.element_size() // copies
        self.bytes_per_input = forward_bytes(self.network, image) + sum(saved.values()) + 2 * arrived + held
        mine = self._squares()
        self._forget()
        self._checking = False
        for parameter, gradient in zip(parameters, truth, strict=True):
            if id(parameter) in self._plain:
                continue
            parameter.requires_grad_(False)
            wanted = 0.0 if gradient is None else float(gradient.double().square().sum())
            got = float(mine.get(id(parameter), torch.zeros(1)).sum())
            if not abs(got - wanted) <= 1e-3 * max(wanted, got, 1e-30):
                parameter.requires_grad_(True)
                self._plain[id(parameter)] = parameter

    def _take_head(self, last: nn.Module) -> None:
        """Let ``last`` be the head in closed form, if its parameters are counted and its rule stood the check."""
        own = {id(parameter) for parameter in last.parameters()}
        if isinstance(last, nn.Linear) and id(last.weight) in self._parameters and not own & self._plain.keys():
            self._head = last


def _users(network: nn.Module, layers: list[Layer]) -> set[str]:
    """Names of the modules that hold a parameter of ``layers``, shared ones included."""
    counted = {id(parameter) for group in layer_parameters(network, layers) for parameter in group}
    return {
        name
        for name, module in network.named_modules(remove_duplicate=False)
        if any(id(parameter) in counted for parameter in module.parameters(recurse=False))
    }


def _squared_norms(rows: Tensor) -> Tensor:
    """Float64 (B,) for ``rows`` (B, P): runs of entries as they are, without a copy, then float64."""
    run = math.gcd(rows.shape[1], _RUN)
    runs = rows.unflatten(1, (-1, run if run >= _SHORT_RUN else rows.shape[1]))
    return torch.linalg.vector_norm(runs, dim=2).double().square().sum(1)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _has_rule(module: nn.Module) -> bool:
    # A forward hook of the network's own may change the output, so that the rule's output gradient is not the layer's.
    return find_rule(module) is not None and not module._forward_hooks


def _target(extra: Tensor, t: int, p: Tensor) -> Tensor:
    """Target distribution t of every image, broadcast over copies: (B, 1, C) or (C,)."""
    classes = p.shape[-1]
    if t >= classes:
        return extra[:, t - classes, None, :]
    one_hot = p.new_zeros(classes)
    one_hot[t] = 1
    return one_hot
