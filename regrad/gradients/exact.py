"""Exact class-gradient norms of a batch: activations are differentiated once per class, parameters never.

For an image with copies x_0..x_N and a target distribution q (a class is its one-hot q),

    g_q = 1/(N+1) sum_i J_i^T (q - p_i),      ||a * g_q||^2 = sum_l a_l^2 ||g_q^(l)||^2.

One backward pass a target brings the output gradients of all layers, from which the norms of their parameters'
gradients follow by rules (:mod:`regrad.gradients.recorded`). Layers that weigh nothing are run without a graph, and a
class that weighs little is differentiated as far as it has to be (:mod:`regrad.gradients.depths`).
Where launches would dominate, one pass is for several targets: what is done for one is mapped over them. Elsewhere
passes go one after another, and the products that norms are formed from are of several of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from regrad.gradients import check
from regrad.gradients.costs import JOINED, Costs, evenly
from regrad.gradients.depths import Depths, Order
from regrad.gradients.layers import Layer, layer_parameters
from regrad.gradients.norms import ClassNorms
from regrad.gradients.recorded.channelwise import FEW, Tail, find_channelwise, pays
from regrad.gradients.recorded.differentiated import Derivative, Differentiated, Squares, Waiting
from regrad.gradients.recorded.merged import merge_norms
from regrad.gradients.recorded.recording import Recording, find_watched
from regrad.gradients.rules import Outer, batch_norm
from regrad.network import head
from regrad.network.copies import plain_attention, private_copy
from regrad.network.fold import convolution_format, fold_batch_norms
from regrad.network.hooks import Call, hooked, pulled_back, requiring_grad
from regrad.network.memory import forward_bytes, saved_for_backward, slices

_SHOWN = 3  # names of parameters


class ExactEngine:
    """Squared class-gradient norms by one backward pass for activations per target, or for several at once.

    Several go at once on what launches operations, as many as :meth:`afford` has given memory for and as save launches,
    if PyTorch can map the network's derivative over them and, on the probe, gets the numbers of one at a time.

    Args:
        network: a private copy (:func:`regrad.network.copies.private_copy`); the engine puts hooks on it.
        layers: from :func:`regrad.gradients.layers.find_layers`.
        weights: a_l >= 0, (S, len(layers)); a layer with weight 0 in every row is left out.
        probe: two or more inputs (B, channels, H, W) on which the layer rules are checked against autograd.
        copies: how many an image will have, for the estimate of its memory.
        targets: how many target distributions it will have, likewise; None: as many as there are classes.
        together: whether targets may go at once; None: where operations are launched, which is not on a CPU.
        depths: to which classes may be differentiated, with one row of weights; None: each as deep as there is.

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
        together: bool | None = None,
        depths: Depths | None = None,
    ) -> None:
        self.network = network
        self._depths = depths
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
        watched = find_watched(network, layers, self._parameters)
        self._watched = check.trusted(network, self._parameters, watched, probe)
        ruled = {name for item in self._watched for name in item.parameters.values()}
        self._plain = {name: parameter for name, parameter in self._parameters.items() if name not in ruled}
        self._head: nn.Linear | None = None
        self._channelwise: set[int] = set()  # places of the watched modules that have a closed form as the head has
        self._memory, self._together = 0, False
        self._costs = self._estimate(probe[:1], copies, targets)
        self._head = self._take_head(last)
        self._channelwise = self._find_channelwise(last, probe, copies)
        if self._merge(probe, copies):
            self._costs = self._estimate(probe[:1], copies, targets)
        self._costs = replace(self._costs, least=self._costs.least + self._bytes_of_tail(probe[:1], copies))
        self.bytes_per_input = self._costs.least
        wanted = probe.device.type != "cpu" if together is None else together
        self._alone = self._try_together(probe) if wanted else ""  # why targets go one at a time where they need not
        self._together = wanted and not self._alone

    @property
    def without_rule(self) -> tuple[str, ...]:
        """Names of the counted parameters that autograd differentiates, so that images go through one at a time.

        No rule knows their layer, or the rule disagreed with autograd on the probe.
        """
        return tuple(self._plain)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which parameters have no rule, and why classes go one at a time: users meet them as slowness."""
        names = list(self._plain)
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        without = (f"without a layer rule, so differentiated image by image: {shown}",) if names else ()
        return (*without, f"one class at a time: {self._alone}") if self._alone else without

    def convert(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype`` from now on; rules have been checked in the one before."""
        self.network.to(dtype)

    def afford(self, memory: int) -> None:
        """Take up to so many bytes in a call: what images leave over is for targets at once, where that is faster."""
        self._memory = memory

    def targets_at_once(self, inputs: int) -> int:
        """For how many targets a backward pass of so many copies is; one until memory is afforded."""
        return self._costs.targets_at_once(self._memory // inputs, inputs) if self._together else 1

    def bytes_of(self, inputs: int) -> int:
        """Memory that so many copies at once take."""
        return inputs * (self._costs.least + (self.targets_at_once(inputs) - 1) * self._costs.further)

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
        per_layer, order, logits = self._of_layers(copies, targets, with_classes)
        return ClassNorms(self._weighed(per_layer, order), logits)

    def _of_layers(
        self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None, with_classes: bool
    ) -> tuple[Tensor, Order, Tensor]:
        """||block of g_q||^2 of each layer, (layers, B, T), how deep it was formed, and the logits (B, N+1, C)."""
        logits, recording, tail = self._record(copies.flatten(0, 1), len(copies), self._at_once(copies) > 1)
        exact_logits = logits.detach().double().unflatten(0, copies.shape[:2])
        log_p = exact_logits.log_softmax(-1)
        p = log_p.exp()
        extra = targets(log_p[:, 0]) if targets is not None else p.new_zeros(len(p), 0, p.shape[-1])
        order = Order.of(self._depths, log_p[:, 0]) if with_classes else Order(p.new_zeros(len(p), 0).long())
        per_layer = p.new_zeros(len(self.layers), len(p), order.classes + extra.shape[1])
        if logits.requires_grad:
            self._differentiate(logits, recording, order, p, extra, self._at_once(copies), per_layer)
        for name, squares in self._closed_forms(tail, p, extra, with_classes):
            per_layer[self._place[name]] += squares
        return per_layer, order, exact_logits

    def _at_once(self, copies: Tensor) -> int:
        return self.targets_at_once(copies.shape[0] * copies.shape[1])

    def _differentiate(
        self,
        logits: Tensor,
        recording: Recording,
        order: Order,
        p: Tensor,
        extra: Tensor,
        at_once: int,
        per_layer: Tensor,
    ) -> None:
        """Put into ``per_layer`` (layers, B, T) what backward passes give: of the classes, then of the ``extra``."""
        classes, count = order.classes, per_layer.shape[2]
        recording.prepare(count)
        squares = self._squares(recording, logits.device)
        waiting = Waiting(squares, order, per_layer, self._costs.joined)
        for places, depth in (*order.passes(), (range(classes, count), 0)):
            derivative = self._derivative(logits, recording, depth)
            if derivative is None or not places:
                continue
            for part in slices(len(places), -(-len(places) // at_once)):
                own = places[part]
                cotangents = ((order.distributions(own, extra, p) - p) / p.shape[1]).flatten(1, 2).to(logits.dtype)
                if cotangents.device.type == "cpu" and not cotangents.any():
                    continue  # NEGrad's on the clean image; to ask would make a GPU's host wait
                if at_once > 1:
                    of_layers = for_each(partial(squares.of_one, derivative), cotangents)
                    per_layer[:, :, own.start : own.stop] = of_layers.permute(2, 1, 0)
                else:
                    waiting.add(own.start, derivative(cotangents[0]))
        waiting.form()
        per_layer[:, :, :classes] = order.by_class(per_layer[:, :, :classes])

    def _closed_forms(self, tail: Tail, p: Tensor, extra: Tensor, with_classes: bool) -> Iterator[tuple[str, Tensor]]:
        """Squared norms, (B, T), of the parameters that need no backward pass for each target."""
        if tail.features is None or self._head is None:
            return
        weight, bias = self._head_names()
        h = tail.features.detach().unflatten(0, p.shape[:2])
        squares = head.squared_norms(h, p, extra, bias=bias is not None)
        yield weight, squares if with_classes else squares[:, p.shape[2] :]
        if tail.watched:
            yield from tail.squares(self._head, p, extra, with_classes)

    def _weighed(self, per_layer: Tensor, order: Order) -> Tensor:
        """||a g_q||^2, (S, B, T), of the squares of the layers (layers, B, T)."""
        squared = torch.einsum("sl,lbt->sbt", self.weights.square(), per_layer)
        if order.depths is None or order.chosen is None:
            return squared
        index = torch.tensor([layer.index for layer in self.layers])
        counted = torch.stack([(index >= depth.first_layer).to(self.weights) for depth in order.depths.each])
        from_each = torch.einsum("sl,lbt->sbt", counted * self.weights.square(), per_layer[:, :, : order.classes])
        return torch.cat([order.depths.whole(from_each, order.chosen), squared[0, :, order.classes :]], 1)[None]

    def _derivative(self, logits: Tensor, recording: Recording, depth: int = 0) -> Derivative | None:
        """J^T v of the layers from ``depth`` on as a function of v, (M, C); None where that differentiates nothing."""
        first = self._depths.each[depth].first_layer if self._depths else 0
        names = {name for name, place in self._place.items() if self.layers[place].index >= first}
        outputs = recording.outputs(names)
        plain = {name: parameter for name, parameter in self._plain.items() if name in names}
        inputs: list[Any] = [*(recording.edges[output] for output in outputs), *plain.values()]
        held: list[Tensor | None] = []

        def of_cotangent(cotangent: Tensor) -> Differentiated:
            gradients = pulled_back(cotangent, logits, inputs, retain_graph=True)
            if logits.device.type == "cpu":
                held[:] = gradients[:1]  # as a rule the largest: a system that got it back would clear it for the next
            of_outputs = dict(zip(outputs, gradients, strict=False))
            return Differentiated(names, of_outputs, dict(zip(plain, gradients[len(outputs) :], strict=True)))

        return of_cotangent if inputs else None

    def _squares(self, recording: Recording, device: torch.device) -> Squares:
        return Squares(recording, self._place, [layer.index for layer in self.layers], device)

    def _record(self, x: Tensor, images: int, together: bool = False) -> tuple[Tensor, Recording, Tail]:
        """Logits, what the watched modules left behind, and what the closed forms need."""
        recording, tail = Recording(images, together), Tail(Recording(images))

        def note(i: int, call: Call) -> Tensor | None:
            item = self._watched[i]
            if item.module is self._head:
                tail.features = call.input
                return None
            return tail.note(item, call) if i in self._channelwise else recording.note(item, call)

        modules = {i: item.module for i, item in enumerate(self._watched)}
        with hooked(modules, leave=note), torch.enable_grad(), plain_attention():
            logits = self.network(x)
        return logits, recording, tail

    # -- what is watched -------------------------------------------------------------------------------------------

    def _take_head(self, name: str | None) -> nn.Linear | None:
        """The head, to be taken in closed form, if its weight is counted and its rules stood the check."""
        module = self.network.get_submodule(name) if name else None
        own = {id(parameter) for parameter in module.parameters()} if module else set()
        counted = {id(parameter) for parameter in self._parameters.values()}
        plain = {id(parameter) for parameter in self._plain.values()}
        taken = isinstance(module, nn.Linear) and id(module.weight) in counted and not own & plain
        return module if taken else None  # type: ignore[return-value]

    def _find_channelwise(self, last: str | None, probe: Tensor, copies: int) -> set[int]:
        """Places of the watched modules that have a closed form, if it gives what backward passes give on the probe."""
        wanted = self._head and self._costs.targets > FEW
        channelwise = find_channelwise(self.network, last, probe[: check.IMAGES]) if wanted else set()
        names = {module: name for name, module in self.network.named_modules()}
        uses = self._record(probe[:1], 1)[1].uses if channelwise else {}

        def fits(name: str) -> bool:
            factors = uses[name].factors
            shapes = [factor.shape for factor in factors if isinstance(factor, Outer)]
            return len(factors) == 1 and all(pays(shape, self._head_width, copies) for shape in shapes)

        found = {
            i
            for i, item in enumerate(self._watched)
            if names[item.module] in channelwise and all(map(fits, item.parameters.values()))
        }
        if not found:
            return found
        before = self._squares_of(probe)
        self._channelwise = found
        return found if check.all_agree(before, self._squares_of(probe)) else set()

    def _merge(self, probe: Tensor, copies: int) -> bool:
        """Whether convolutions and BatchNorms were merged, which gave what they give by themselves on the probe."""
        if not any(item.rule is batch_norm for item in self._watched):
            return False
        before, watched, channelwise = self._squares_of(probe), self._watched, self._channelwise
        closed = [watched[i] for i in channelwise]
        others = [item for i, item in enumerate(watched) if i not in channelwise]
        merged, undo = merge_norms(self.network, others, probe[:1], copies, self._costs.targets)
        if len(merged) == len(others):
            return False
        self._watched, self._channelwise = closed + merged, set(range(len(closed)))
        if check.all_agree(before, self._squares_of(probe)):
            return True
        undo()
        self._watched, self._channelwise = watched, channelwise
        return False

    def _squares_of(self, probe: Tensor) -> list[float]:
        """||block of g_q||^2 of each layer for some q, to compare ways to it."""
        x = probe[: 1 if self._plain else check.IMAGES, None]
        with requiring_grad(self._plain.values()):
            return self._of_layers(x, check.some_distributions, False)[0].flatten().tolist()

    def _bytes_of_tail(self, image: Tensor, copies: int) -> int:
        if not self._channelwise:
            return 0
        return self._record(image, 1)[2].bytes_held(copies, image.element_size())

    @property
    def _head_width(self) -> int:
        return self._head.weight.shape[1] if self._head else 0

    def _head_names(self) -> tuple[str, str | None]:
        """What the network calls the head's weight and, where that counts, its bias."""
        (own,) = (item.parameters for item in self._watched if item.module is self._head)
        return own["weight"], own.get("bias")

    def _estimate(self, image: Tensor, copies: int, targets: int | None) -> Costs:
        """What one copy of an image takes: the forward pass, the graph, and what the norms are formed from."""
        with requiring_grad(self._parameters.values()), saved_for_backward(self.network) as saved:
            logits, recording, _ = self._record(image, 1)
        targets = targets or logits.shape[1]
        size = image.element_size()
        held, further = recording.bytes_held(targets, copies, size), recording.bytes_per_target(copies, size)
        plain = sum(parameter.numel() * parameter.element_size() for parameter in self._plain.values())
        least = forward_bytes(self.network, image) + sum(saved.values()) + held + further
        joined = 1
        if inputs := recording.bytes_side_by_side(targets, copies, size):
            joined = evenly(targets, min(JOINED, 1 + least // recording.arrived))
            least += inputs + (joined - 1) * recording.arrived
        return Costs(targets, least, further + plain // copies, recording.bytes_per_output(), joined)

    def _try_together(self, probe: Tensor) -> str:
        """Why several targets cannot go at once; nothing if they can."""
        x = probe[: 1 if self._plain else check.IMAGES]
        with requiring_grad(self._plain.values()):
            functions = []
            for together in (False, True):
                logits, recording, _ = self._record(x, len(x), together)
                if not logits.requires_grad:
                    return ""  # the head alone counts
                recording.prepare(self._costs.targets)
                derivative = self._derivative(logits, recording)
                assert derivative is not None, "the logits require a gradient"
                functions.append(partial(self._squares(recording, logits.device).of_one, derivative))
            one, mapped = functions
            return check.apart(one, partial(for_each, mapped), logits.detach())


def _users(network: nn.Module, layers: list[Layer]) -> set[str]:
    """Names of the modules that hold a parameter of ``layers``, shared ones included."""
    counted = {id(parameter) for group in layer_parameters(network, layers) for parameter in group}
    return {
        name
        for name, module in network.named_modules(remove_duplicate=False)
        if any(id(parameter) in counted for parameter in module.parameters(recurse=False))
    }


def for_each(function: Callable[[Tensor], Tensor], cotangents: Tensor) -> Tensor:
    """What ``function`` gives for each of ``cotangents``, stacked: of several by operations for all of them at once."""
    return torch.vmap(function)(cotangents) if len(cotangents) > 1 else function(cotangents[0])[None]
