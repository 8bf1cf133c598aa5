"""Exact class-gradient norms of a batch: activations are differentiated once per class, parameters never.

For an image with copies x_0..x_N and a target distribution q (a class is its one-hot q),

    g_q = 1/(N+1) sum_i J_i^T (q - p_i),      ||a * g_q||^2 = sum_l a_l^2 ||g_q^(l)||^2.

One backward pass a target brings the output gradients of all layers, from which the norms of their parameters'
gradients follow by rules (:mod:`regrad.gradients.recording`). Layers that weigh nothing are run without a graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regrad.gradients import check
from regrad.gradients.layers import Layer, layer_parameters
from regrad.gradients.norms import ClassNorms, squared_norm
from regrad.gradients.recording import Recording, Watched
from regrad.gradients.rules import Rule, find_rule
from regrad.network import head
from regrad.network.copies import plain_attention, private_copy
from regrad.network.fold import convolution_format, fold_batch_norms
from regrad.network.hooks import Call, hooked, requiring_grad
from regrad.network.memory import forward_bytes, saved_for_backward

_SHOWN = 3  # names of parameters


class ExactEngine:
    """Squared class-gradient norms by one backward pass for activations per target.

    Args:
        network: a private copy (:func:`regrad.network.copies.private_copy`); the engine puts hooks on it.
        layers: from :func:`regrad.gradients.layers.find_layers`.
        weights: a_l >= 0, (S, len(layers)); a layer with weight 0 in every row is left out.
        probe: two or more inputs (B, channels, H, W) on which the layer rules are checked against autograd.
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
        self._parameters: dict[str, nn.Parameter] = {}
        self._place: dict[str, int] = {}  # of a parameter's layer
        for i, group in zip(kept, layer_parameters(network, [layers[i] for i in kept]), strict=True):
            for own, parameter in zip(layers[i].parameters, group, strict=True):
                name = f"{layers[i].name}.{own}".lstrip(".")
                self._parameters[name], self._place[name] = parameter, i
        last = head.find_head(network, probe[:1])
        self._watched = check.trusted(network, self._parameters, self._find_watched(), probe)
        ruled = {name for item in self._watched for name in item.parameters.values()}
        self._plain = {name: parameter for name, parameter in self._parameters.items() if name not in ruled}
        self._head: nn.Linear | None = None
        self.bytes_per_input = self._estimate_bytes(probe[:1], copies, targets)
        self._head = self._take_head(last)

    @property
    def without_rule(self) -> tuple[str, ...]:
        """Names of the counted parameters that autograd differentiates, so that images go through one at a time.

        No rule knows their layer, or the rule disagreed with autograd on the probe.
        """
        return tuple(self._plain)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which parameters have no rule: users meet them as slowness."""
        names = list(self._plain)
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        return (f"without a layer rule, so differentiated image by image: {shown}",) if names else ()

    def convert(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype`` from now on; rules have been checked in the one before."""
        self.network.to(dtype)

    def twins(self, count: int) -> list[ExactEngine]:
        """Others with networks of their own, whose parameters lie in the same memory; none if it cannot be copied."""
        made: list[ExactEngine] = []
        for _ in range(count):
            copied: dict[int, Any] = {}
            try:
                private_copy(self.network, copied)
                made.append(copy.deepcopy(self, copied))
            except Exception:  # whatever a module of the user's raises: one engine does, too
                return []
        return made

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
        with requiring_grad(self._plain.values()):
            if self._plain and len(copies) > 1:
                return ClassNorms.of_parts([self._norms(image[None], targets, classes) for image in copies])
            return self._norms(copies, targets, classes)

    def _norms(self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None, with_classes: bool) -> ClassNorms:
        images, number = copies.shape[:2]
        logits, recording, features = self._record(copies.flatten(0, 1), images)
        exact_logits = logits.detach().double().reshape(images, number, -1)
        log_p = exact_logits.log_softmax(-1)
        p = log_p.exp()
        classes = p.shape[-1]
        extra = targets(log_p[:, 0]) if targets is not None else p.new_zeros(images, 0, classes)
        wanted = range(0 if with_classes else classes, classes + extra.shape[1])
        per_layer = p.new_zeros(len(self.layers), images, len(wanted))
        if features is not None:
            weight, bias = self._head_names()
            squares = head.squared_norms(features.reshape(images, number, -1), p, extra, bias=bias is not None)
            per_layer[self._place[weight]] += squares[:, wanted.start :]
        if logits.requires_grad:
            inputs = [*recording.leaves, *self._plain.values()]
            recording.prepare(len(wanted))
            for column, t in enumerate(wanted):
                cotangent = (_target(extra, t, p) - p) / number
                if t >= classes and cotangent.device.type == "cpu" and not cotangent.any():
                    continue  # NEGrad's on the clean image; to ask would make a GPU's host wait
                gradients = torch.autograd.grad(
                    logits, inputs, cotangent.flatten(0, 1).to(logits.dtype), retain_graph=True, allow_unused=True
                )
                of_layers = recording.squares(self._place, len(self.layers))
                if of_layers is not None:
                    per_layer[:, :, column] += of_layers.T
                for name, gradient in zip(self._plain, gradients[len(recording.leaves) :], strict=True):
                    per_layer[self._place[name], :, column] += squared_norm(gradient)
        return ClassNorms(torch.einsum("sl,lbt->sbt", self.weights.square(), per_layer), exact_logits)

    def _record(self, x: Tensor, images: int) -> tuple[Tensor, Recording, Tensor | None]:
        """Logits, what the watched modules left behind, and the head's input if the head is taken in closed form."""
        recording = Recording(images)
        features: list[Tensor] = []

        def note(i: int, call: Call) -> Tensor | None:
            if self._watched[i].module is self._head:
                features.append(call.input.detach())
                return None
            return recording.note(self._watched[i], call)

        modules = {i: item.module for i, item in enumerate(self._watched)}
        with hooked(modules, leave=note), torch.enable_grad(), plain_attention():
            logits = self.network(x)
        return logits, recording, features[0] if features else None

    # -- what is watched -------------------------------------------------------------------------------------------

    def _find_watched(self) -> list[Watched]:
        """The modules that use a counted parameter and have a rule for it, as the layer that owns it has."""
        modules = dict(self.network.named_modules(remove_duplicate=False))
        rules = {module: _find_rule(module) for module in dict.fromkeys(modules.values())}
        ruled = {
            id(parameter)
            for layer in self.layers
            if layer.batch_major and layer.calls and rules[modules[layer.name]] is not None
            for parameter in modules[layer.name].parameters(recurse=False)
        }
        names = {id(parameter): name for name, parameter in self._parameters.items() if id(parameter) in ruled}
        watched = []
        for module, rule in rules.items():
            own = {key: names[id(value)] for key, value in module.named_parameters(recurse=False) if id(value) in names}
            if own and rule is not None:
                watched.append(Watched(module, rule, own))
        return watched

    def _take_head(self, name: str | None) -> nn.Linear | None:
        """The head, to be taken in closed form, if its weight is counted and its rules stood the check."""
        module = self.network.get_submodule(name) if name else None
        own = {id(parameter) for parameter in module.parameters()} if module else set()
        counted = {id(parameter) for parameter in self._parameters.values()}
        plain = {id(parameter) for parameter in self._plain.values()}
        taken = isinstance(module, nn.Linear) and id(module.weight) in counted and not own & plain
        return module if taken else None  # type: ignore[return-value]

    def _head_names(self) -> tuple[str, str | None]:
        """What the network calls the head's weight and, where that counts, its bias."""
        (own,) = (item.parameters for item in self._watched if item.module is self._head)
        return own["weight"], own.get("bias")

    def _estimate_bytes(self, image: Tensor, copies: int, targets: int | None) -> int:
        """Memory that one copy of an image takes: the forward pass, the graph, and what the norms are formed from."""
        with requiring_grad(self._parameters.values()), saved_for_backward(self.network) as saved:
            logits, recording, _ = self._record(image, 1)
        own = recording.bytes_per_input(targets or logits.shape[1], copies, image.element_size())
        return forward_bytes(self.network, image) + sum(saved.values()) + own


def _users(network: nn.Module, layers: list[Layer]) -> set[str]:
    """Names of the modules that hold a parameter of ``layers``, shared ones included."""
    counted = {id(parameter) for group in layer_parameters(network, layers) for parameter in group}
    return {
        name
        for name, module in network.named_modules(remove_duplicate=False)
        if any(id(parameter) in counted for parameter in module.parameters(recurse=False))
    }


def _find_rule(module: nn.Module) -> Rule | None:
    # A forward hook of the network's own may change the output, so that the rule's output gradient is not the layer's.
    return None if module._forward_hooks else find_rule(module)


def _target(extra: Tensor, t: int, p: Tensor) -> Tensor:
    """Target distribution t of every image, broadcast over copies: (B, 1, C) or (C,)."""
    classes = p.shape[-1]
    if t >= classes:
        return extra[:, t - classes, None, :]
    one_hot = p.new_zeros(classes)
    one_hot[t] = 1
    return one_hot
