"""What a factory returned: a network, and what is known of its preprocessing and its classes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from regrad.errors import UsageError
from regrad.models import processors
from regrad.models.processors import Known, Preprocess

KEYS = (
    "image_size",
    "mean",
    "std",
    "channels",
    "class_names",
    "resize_size",
    "interpolation",
    "crop_mode",
    "outputs",
    "scaled_jpeg",
)
_FURTHER = ("transform", "id2label")
_PLACEHOLDER = re.compile(r"LABEL_\d+")  # transformers' name of a class that nobody named
_INDEPENDENT = {"multi_label_classification": "labels that an image may have several of", "regression": "a regression"}


@dataclass
class Loaded:
    """A network and what is known of it.

    Attributes:
        known: arguments of the classifier.
        notes: what was assumed, a line each.
        preprocess: what the library does with a picture, to compare with.
        assumed: which of ``known`` nobody said.
        settings: what changes its results and is neither in its weights nor in its ``repr``.
        doubt: why its outputs may be no logits of one class an image; a user who says what they are settles it.
    """

    network: nn.Module
    known: Known = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    preprocess: Preprocess | None = None
    assumed: set[str] = field(default_factory=set)
    settings: list[str] = field(default_factory=list)
    doubt: str = ""


def unpack(built: Any) -> Loaded:
    """What a factory returned: a network alone, or with dicts and a processor in a tuple.

    Raises:
        UsageError: there is no network in it, or something that is not understood; without the factory's name.
    """
    network, *others = built if isinstance(built, tuple | list) and built else (built,)
    if not isinstance(network, nn.Module):
        raise UsageError(f"the factory returned {type(network).__name__}, not a torch.nn.Module")
    loaded = Loaded(network)
    for other in others:
        if isinstance(other, Mapping):
            loaded.known |= from_dict(other)
        elif processors.is_processor(other):
            known, loaded.preprocess, loaded.notes = processors.of_processor(other)
            loaded.known = known | loaded.known
        elif other is not None:
            raise UsageError(
                f"the factory returned a {type(other).__name__} beside the network: a dict of {', '.join(KEYS)} is "
                "understood, a processor of transformers', torchvision's weights.transforms(), its Compose, or its "
                "transforms in a list or a Sequential"
            )
    _ask_network(loaded, told=bool(loaded.known))
    return loaded


def from_dict(given: Mapping[str, Any]) -> Known:
    """The arguments of the classifier in a factory's dict.

    Raises:
        UsageError: a key that is none.
    """
    if "input_size" in given and given.keys() <= processors.TIMM_KEYS:  # as timm.data.resolve_model_data_config
        return processors.of_timm(given)
    unknown = [str(key) for key in given if key not in (*KEYS, *_FURTHER)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], KEYS, 1, 0.5)
        raise UsageError(
            f"the factory's dict has a key that Classifier does not know: {', '.join(unknown)}"
            + (f" (is it {near[0]}?)" if near else "")
            + f"; the keys are {', '.join(KEYS)}, transform"
        )
    known = {key: value for key, value in given.items() if value is not None}
    names = known.pop("id2label", None)
    return {"class_names": names} | known if names is not None else known


def _ask_network(loaded: Loaded, told: bool) -> None:
    """Add what the network's own configuration says, where the factory said nothing of it."""
    network, known = loaded.network, loaded.known
    timms = getattr(network, "timm_model", network)  # transformers' wrapper around one has it inside
    if not told and isinstance(getattr(timms, "pretrained_cfg", None), Mapping):
        import timm

        known |= processors.of_timm(timm.data.resolve_model_data_config(timms))
        loaded.notes.append("the factory says nothing of preprocessing: it is that of the network's pretrained_cfg")
    config = getattr(network, "config", None)  # transformers'
    if config is None or not hasattr(config, "id2label"):
        return
    if "image_size" not in known and getattr(config, "image_size", None) is not None:
        known["image_size"] = config.image_size
    if "channels" not in known and isinstance(getattr(config, "num_channels", None), int):
        known["channels"] = config.num_channels
    names = config.id2label
    if "class_names" not in known and names and not all(_PLACEHOLDER.fullmatch(str(name)) for name in names.values()):
        known["class_names"] = names
    loaded.doubt = _INDEPENDENT.get(getattr(config, "problem_type", None) or "", "")
