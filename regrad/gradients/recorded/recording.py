"""What one forward pass leaves behind, from which norms follow once output gradients have arrived."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from regrad.gradients.layers import Layer
from regrad.gradients.recorded.uses import Addends, Gradients, OuterSums, Use, outer_sum
from regrad.gradients.rules import REMADE, Direct, Outer, Rule, find_rule
from regrad.network.hooks import Call, in_graph


@dataclass(frozen=True)
class Watched:
    """A module whose parameters a rule differentiates.

    Attributes:
        parameters: those that count: how all of the network call them, by the module's own names.
    """

    module: nn.Module
    rule: Rule
    parameters: Mapping[str, str]

    def without(self, names: Collection[str]) -> Watched:
        """The same, with the parameters that the network calls ``names`` left to others."""
        return replace(self, parameters={own: name for own, name in self.parameters.items() if name not in names})


def find_watched(network: nn.Module, layers: Sequence[Layer], parameters: Mapping[str, nn.Parameter]) -> list[Watched]:
    """The modules that use one of the ``parameters`` and have a rule for it, as the layer that owns it has."""
    modules = dict(network.named_modules(remove_duplicate=False))
    rules = {module: _find_rule(module) for module in dict.fromkeys(modules.values())}
    ruled = {
        id(parameter)
        for layer in layers
        if layer.batch_major and layer.calls and rules[modules[layer.name]] is not None
        for parameter in modules[layer.name].parameters(recurse=False)
    }
    names = {id(parameter): name for name, parameter in parameters.items() if id(parameter) in ruled}
    watched = []
    for module, rule in rules.items():
        own = {key: names[id(value)] for key, value in module.named_parameters(recurse=False) if id(value) in names}
        if own and rule is not None:
            watched.append(Watched(module, rule, own))
    return watched


def _find_rule(module: nn.Module) -> Rule | None:
    # A forward hook of the network's own may change the output, so that the rule's output gradient is not the layer's.
    return None if module._forward_hooks else find_rule(module)


@dataclass
class Recording:
    """One forward pass over ``images`` and their copies.

    Attributes:
        together: whether gradients will come for several targets at once.
        uses: by parameter, as the network calls it.
        edges: where in the graph the gradients of the watched modules' outputs are, one for each call.
        arriving: bytes of these gradients, as often as one counts for a parameter.
        arrived: the same, each once.
    """

    images: int
    together: bool = False
    uses: dict[str, Use] = field(default_factory=dict)
    edges: list[GradientEdge] = field(default_factory=list)
    arriving: int = 0
    arrived: int = 0
    _scratch: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def note(self, watched: Watched, call: Call) -> Tensor:
        """Take down a call of a module; returns the output that goes on, whose gradient will be asked for."""
        factors = watched.rule(watched.module, call.input.detach(), self.images)
        output = in_graph(call.output)
        if output is call.output and self.together and watched.rule in REMADE and not _differentiated(watched.module):
            output = REMADE[watched.rule](watched.module, call.input, output)
        edge = get_gradient_edge(output)  # now: a change in place would move the output away from it
        for own, factor in factors.items():
            names = _named(own, factor, watched.parameters)
            if not names:
                continue
            known = self.uses.get(next(iter(names.values())))
            use = known or Use(names, OuterSums.apply if self.together else outer_sum, scratch=self._scratch)
            use.add(factor, len(self.edges))
            self.uses |= dict.fromkeys(names.values(), use)
            self.arriving += len(names) * output.numel() * output.element_size()
        self.edges.append(edge)
        self.arrived += output.numel() * output.element_size()
        return output

    def prepare(self, targets: int) -> None:
        """Form what does not depend on the target, once the forward pass is over."""
        for use in self._each_use():
            use.prepare(targets)

    def outputs(self, names: Collection[str]) -> list[int]:
        """Which of :attr:`edges` the parameters ``names`` need, in order."""
        return sorted({output for name in names if name in self.uses for output in self.uses[name].outputs})

    def addends(
        self,
        gradients: Sequence[Gradients],
        names: Sequence[Collection[str]],
        wanted: Callable[[Collection[str]], Tensor] | None = None,
    ) -> dict[str, Addends]:
        """Of each parameter, from the ``gradients`` of each target at :attr:`edges`; none where no gradient came.

        Args:
            gradients: of each target.
            names: of the parameters that count for each target, which gets zeros for the others.
            wanted: for which images of each target some of these names count, bool (T, B); None: for all.
        """
        addends: dict[str, Addends] = {}
        for use in self._each_use():
            own = set(use.names.values())
            targets = [k for k, counted in enumerate(names) if not own.isdisjoint(counted)]
            if not targets:
                continue
            images = None if wanted is None or not use.by_image() else wanted(own)[targets].tolist()
            taken = use.take([gradients[k] for k in targets], images)
            addends |= {name: each.spread(targets, len(names)) for name, each in taken.items()}
        return addends

    def _each_use(self) -> list[Use]:
        """Each once."""
        return list(dict.fromkeys(self.uses.values()))

    def bytes_held(self, targets: int, copies: int, element_size: int) -> int:
        """What prepared forms take for one copy, where one copy of one image was recorded."""
        return sum(use.held(targets, copies) for use in self._each_use()) * element_size // copies

    def bytes_per_target(self, copies: int, element_size: int) -> int:
        """What gradients take for each target that is differentiated at once, and what norms are formed from."""
        derived = max((use.derived(copies) for use in self._each_use()), default=0)
        return 2 * self.arriving + derived * element_size

    def bytes_per_output(self) -> int:
        """Of one of the gradients, in the mean."""
        return self.arriving // max(1, len(self.uses))

    def bytes_side_by_side(self, targets: int, copies: int, element_size: int) -> int:
        """What the inputs of the largest product that is formed image by image take for one copy; 0 if none is."""
        uses = [use for use in self._each_use() if use.by_image(copies) and not use.held(targets, copies)]
        inputs = (math.prod(factor.shape[:3]) for use in uses for factor in use.factors if isinstance(factor, Outer))
        return max(inputs, default=0) * element_size


def _differentiated(module: nn.Module) -> bool:
    """Whether autograd's part is among the module's own parameters."""
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def _named(own: str, factor: Outer | Direct, parameters: Mapping[str, str]) -> Mapping[str, str]:
    """The parameters that a factor is for, those that count."""
    if isinstance(factor, Outer) and factor.derived is not None:
        return parameters
    return {own: parameters[own]} if own in parameters else {}
