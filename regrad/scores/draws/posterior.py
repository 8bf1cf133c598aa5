"""A Gaussian posterior around the pre-trained weights, from training images: the Laplace approximation.

    p(theta | D) ~ N(theta*, S),      S = (sum_n J_n^T L_n J_n + delta I)^-1,      f(x) ~ N(f*(x), J S J^T),

with J the Jacobian of the logits, L_n = diag(p_n) - p_n p_n^T, and delta from the marginal likelihood.
Kronecker-factored over the last layer, or diagonal over all layers, for small networks. laplace-torch fits it; what a
last layer's says of an image is taken from its factors in closed form.

Source: Daxberger et al., NeurIPS 2021 (laplace-torch); a baseline of Wang & Ji 2024.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from regrad import perturb
from regrad.errors import UsageError
from regrad.network.copies import plain_attention, private_copy
from regrad.network.fold import forward_copy
from regrad.network.head import find_head, without_head
from regrad.network.memory import in_pieces, inputs_kept
from regrad.scores.state import State

OTHER_NETWORK = "the posterior was fitted on another network; fit it again"
STRUCTURES = {"last": ("last_layer", "kron"), "all": ("all", "diag")}
_NAMES = ("mean", "loss", "prior_mean", "prior_precision", "sigma_noise")


def fit(network: nn.Module, inputs: Tensor, labels: Tensor, structure: str = "last", batch_size: int = 64) -> State:
    """The posterior of ``network`` given training images, as tensors that can be stored.

    Args:
        network: as pre-trained; a copy is made.
        inputs: what the network receives, (n, channels, H, W).
        labels: class indices, int64 (n,).
        structure: ``last`` (the last layer, Kronecker-factored) or ``all`` (all layers, diagonal).

    Raises:
        UsageError: laplace-torch is not installed, the structure is unknown, or the logits come from no Linear layer.
    """
    posterior = _approximation(network, structure, inputs[:2])
    with plain_attention(), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior.fit(DataLoader(TensorDataset(inputs, labels), batch_size=batch_size))
        posterior.optimize_prior_precision(method="marglik")
    fitted = posterior.state_dict()
    curvature = fitted["H"]
    state = {name: torch.as_tensor(fitted[name]).detach().clone() for name in _NAMES}
    state["images"] = torch.tensor(fitted["n_data"])
    if isinstance(curvature, Tensor):
        return state | {"curvature": curvature.detach().clone()}
    factors = {f"curvature.{i}.{j}": f for i, group in enumerate(curvature) for j, f in enumerate(group)}
    return state | {name: factor.detach().clone().contiguous() for name, factor in factors.items()}


class PosteriorDraws:
    """K draws of the logits of the linearised network, z_k ~ N(f(x), J S J^T), keyed by (seed, id).

    Args:
        network: the one that the posterior was fitted on.
        state: from :func:`fit`.
        draws: K.
        seed: of the draws.
        probe: one or more inputs (B, channels, H, W).

    Raises:
        UsageError: the posterior was fitted on another network.
    """

    def __init__(self, network: nn.Module, state: State, draws: int, seed: int, probe: Tensor) -> None:
        self._draws, self._seed = draws, seed
        state = {name: value.to(probe.device) for name, value in state.items()}
        self._spread = (_AllLayers if "curvature" in state else _LastLayer)(network, state, probe)

    def __call__(self, x: Tensor, ids: Sequence[str]) -> Tensor:
        """log p, float64 (B, K, C)."""
        mean, basis, deviation = self._spread(x)
        noise = perturb.normal(perturb.keys(self._seed, ids, purpose="laplace"), self._draws, deviation.shape[1])
        logits = mean[:, None] + (noise.to(mean) * deviation[:, None]) @ basis.mT
        return logits.log_softmax(2)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x), (B, C), and J S J^T, (B, C, C), float64."""
        mean, basis, deviation = self._spread(x)
        root = basis * deviation[:, None]
        return mean, root @ root.mT


class _LastLayer:
    """f(x), R and s with J S J^T = R diag(s^2) R^T, in the eigenbases of the Kronecker factors of a Linear layer.

    With S = (B x A + delta)^-1 of the weight and (B' + delta)^-1 of the bias, A = U diag(a) U^T, B = V diag(b) V^T and
    the layer's input h,

        J S J^T = V diag_j(sum_i (u_i . h)^2 / (a_i b_j + delta)) V^T + V' diag(1 / (b'_j + delta)) V'^T,

    which no Jacobian is formed for: an image takes its forward pass.
    """

    def __init__(self, network: nn.Module, state: State, probe: Tensor) -> None:
        self._network = forward_copy(network, probe)
        self._most = inputs_kept(self._network, probe)
        name = find_head(self._network, probe)
        self._head = None if name is None else without_head(self._network, name)
        if self._head is None or len(state["mean"]) != sum(value.numel() for value in self._head.parameters()):
            raise UsageError(OTHER_NETWORK)
        delta = state["prior_precision"].double()
        b, v = _eigen(state["curvature.0.0"])
        a, self._u = _eigen(state["curvature.0.1"])
        self._variances = 1 / (a[:, None] * b + delta)
        self._of_bias, self._basis = b.new_zeros(0), v
        if self._head.bias is not None:
            b, of_bias = _eigen(state["curvature.1.0"])
            self._of_bias, self._basis = 1 / (b + delta), torch.cat([v, of_bias], 1)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f(x), (B, C), R, (C, 2 C), or (C, C) without a bias, and s, (B, 2 C), float64."""
        assert self._head is not None
        with plain_attention(), torch.no_grad():
            h = in_pieces(self._network, self._most, x)
            mean = F.linear(h, self._head.weight, self._head.bias).double()
        variance = (h.double() @ self._u).square() @ self._variances
        return mean, self._basis, torch.cat([variance, self._of_bias.expand(len(x), -1)], 1).sqrt()


class _AllLayers:
    """The same for a diagonal S over all layers, from laplace-torch's Jacobians."""

    def __init__(self, network: nn.Module, state: State, probe: Tensor) -> None:
        self._posterior = _approximation(network, "all", probe)
        if len(state["mean"]) != (self._posterior.n_params or 0):
            raise UsageError(OTHER_NETWORK)
        with torch.no_grad(), plain_attention():
            outputs = network(probe).shape[1]
        held = {name: state[name] for name in _NAMES} | {"H": state["curvature"]}
        rest = {"n_data": int(state["images"]), "n_outputs": outputs, "temperature": 1.0, "enable_backprop": False}
        kind = {"data": None, "likelihood": "classification", "cls_name": type(self._posterior).__name__}
        self._posterior.load_state_dict(held | rest | kind)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f(x), (B, C), R, (B, C, C), and s, (B, C), float64."""
        with plain_attention(), torch.enable_grad():
            mean, variance = self._posterior._glm_predictive_distribution(x)
        # Rounding leaves eigenvalues just below 0, which have no root.
        values, vectors = _eigen(variance.detach())
        return mean.detach().double(), vectors, values.sqrt()


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of what is positive semidefinite but for rounding, float64."""
    values, vectors = torch.linalg.eigh(matrix.double())
    return values.clamp_min(0), vectors


def _approximation(network: nn.Module, structure: str, probe: Tensor) -> Any:
    """laplace-torch's object for a private copy of ``network``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a package that it imports in turn
            from laplace import Laplace
    except ImportError as error:
        raise UsageError("laplace: laplace-torch is not installed; pip install 'regrad[laplace]'") from error
    if structure not in STRUCTURES:
        raise UsageError(f"fit structure {structure!r}: one of {', '.join(STRUCTURES)}")
    own = private_copy(network)
    subset, form = STRUCTURES[structure]
    last = find_head(own, probe) if structure == "last" else None
    if structure == "last" and last is None:
        raise UsageError(
            f"laplace: the logits of {type(network).__name__} come from no Linear layer; use structure all"
        )
    own.requires_grad_(True)
    named = {"last_layer_name": last} if last else {}
    posterior = Laplace(own, "classification", subset_of_weights=subset, hessian_structure=form, **named)
    return posterior
