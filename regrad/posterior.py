"""A Gaussian posterior around the pre-trained weights, from training images: the Laplace approximation.

    p(theta | D) ~ N(theta*, S),      S = (sum_n J_n^T L_n J_n + delta I)^-1,      f(x) ~ N(f*(x), J S J^T),

with J the Jacobian of the logits, L_n = diag(p_n) - p_n p_n^T, and delta from the marginal likelihood.
Kronecker-factored over the last layer, or diagonal over all layers, for small networks. laplace-torch does the work;
this is how it is asked.

Source: Daxberger et al., NeurIPS 2021 (laplace-torch); a baseline of Wang & Ji 2024.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from regrad import perturb
from regrad.errors import UsageError
from regrad.gradients.head import find_head
from regrad.gradients.layers import plain_attention, private_copy

STRUCTURES = {"last": ("last_layer", "kron"), "all": ("all", "diag")}
State = dict[str, Tensor]
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
    found = posterior.state_dict()
    curvature = found["H"]
    state = {name: torch.as_tensor(found[name]).detach().clone() for name in _NAMES}
    state["images"] = torch.tensor(found["n_data"])
    if isinstance(curvature, Tensor):
        return state | {"curvature": curvature.detach().clone()}
    factors = {f"curvature.{i}.{j}": f for i, group in enumerate(curvature) for j, f in enumerate(group)}
    return state | {name: factor.detach().clone().contiguous() for name, factor in factors.items()}


def fingerprint(state: State) -> str:
    """SHA-256 of a posterior."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}|{tuple(state[name].shape)}|".encode())
        digest.update(state[name].cpu().double().numpy().tobytes())
    return digest.hexdigest()


class PosteriorDraws:
    """K draws of the logits of the linearised network, z_k ~ N(f(x), J S J^T), keyed by (seed, id).

    Args:
        network: the one that the posterior was fitted on.
        state: from :func:`fit`.
        draws: K.
        seed: of the draws.
        probe: one or more inputs (B, channels, H, W).
    """

    def __init__(self, network: nn.Module, state: State, draws: int, seed: int, probe: Tensor) -> None:
        self._draws, self._seed = draws, seed
        self._posterior = _approximation(network, "all" if "curvature" in state else "last", probe)
        device = probe.device
        factors: Any = state["curvature"].to(device) if "curvature" in state else _factors(state, device)
        held = {name: state[name].to(device) for name in _NAMES}
        with torch.no_grad(), plain_attention():
            outputs = network(probe).shape[1]
        rest = {"n_data": int(state["images"]), "n_outputs": outputs, "temperature": 1.0, "enable_backprop": False}
        extra = {"data": None, "_last_layer_name": getattr(self._posterior, "_last_layer_name", None)}
        kind = {"likelihood": "classification", "cls_name": type(self._posterior).__name__}
        if len(state["mean"]) != (self._posterior.n_params or 0):
            raise UsageError("the posterior was fitted on another network; fit it again")
        self._posterior.load_state_dict(held | rest | extra | kind | {"H": factors})

    def __call__(self, x: Tensor, ids: Sequence[str]) -> Tensor:
        """log p, float64 (B, K, C)."""
        mean, variance = self.moments(x)
        # Rounding leaves eigenvalues just below 0, which no Cholesky factor would take.
        values, vectors = torch.linalg.eigh(variance)
        root = vectors * values.clamp_min(0).sqrt()[:, None, :]
        noise = perturb.normal(perturb.keys(self._seed, ids, purpose="laplace"), self._draws, mean.shape[1])
        logits = mean[:, None] + torch.einsum("bij,bkj->bki", root, noise.to(mean))
        return logits.log_softmax(2)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x), (B, C), and J S J^T, (B, C, C), float64."""
        with plain_attention(), torch.enable_grad():
            mean, variance = self._posterior._glm_predictive_distribution(x)
        return mean.detach().double(), variance.detach().double()


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


def _factors(state: State, device: torch.device) -> list[list[Tensor]]:
    """The Kronecker factors of each parameter."""
    found: dict[int, dict[int, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("curvature."):
            _, i, j = name.split(".")
            found.setdefault(int(i), {})[int(j)] = value.to(device)
    return [[group[j] for j in sorted(group)] for _, group in sorted(found.items())]
