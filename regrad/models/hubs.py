"""Networks of torchvision and timm by name, with published weights or a checkpoint of one's own."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regrad.cli import nearest
from regrad.errors import UsageError
from regrad.models import processors, states
from regrad.models.architecture import Build, Options, filled, interpolated, needs, restemmed
from regrad.models.checkpoints import Stored
from regrad.models.factory import Loaded
from regrad.models.offline import fetching
from regrad.storage import cache

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_SIDE = 224
_TRANSFORMING = ("googlenet", "inception_v3")  # torchvision's, whose published weights want inputs transformed
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")  # as torchvision's files have it
_WEIGHTS_FILES = ("*/*.safetensors", "*/*.bin", "*/*.pth")


def library_of(name: str) -> str | None:
    """Which of the libraries has a network of this name, torchvision first; None: neither."""
    if name in _of_torchvision():
        return "torchvision"
    with contextlib.suppress(ImportError):
        import timm

        return "timm" if timm.is_model(name) else None
    return None


def _of_torchvision() -> list[str]:
    import torchvision.models

    return torchvision.models.list_models(module=torchvision.models)


def load_torchvision(name: str, stored: Stored | None, image_size: int | None = None) -> Loaded:
    """torchvision's ``NAME[@WEIGHTS]``, filled with ``stored`` if that is given.

    Args:
        image_size: the side that the user asks for, if any: position embeddings are resized to it.

    Raises:
        UsageError: no such network or weights, no way to them, or ``stored`` does not fit.
    """
    spec = f"torchvision:{name}"
    name, _, version = name.partition("@")
    known = _of_torchvision()
    if name not in known:
        raise UsageError(f"{spec}: no such classification model in torchvision.models{nearest(name, known)}")
    if not version and stored is None:
        raise UsageError(f"{spec}: no weights; add @DEFAULT (or another published name) or --weights URI")
    weights = _named(name, version, spec) if version else None
    build = _torchvision_builder(name, weights)
    if stored is None:
        network = _fetched(spec, name, weights, build, image_size)
        return Loaded(network, _known_of(weights, image_size if _has_positions(name) else None))
    if name.startswith("densenet"):
        stored = _renamed(stored)
    options, notes = needs(build, stored, spec, image_size, _side(weights))
    rest = (lambda: _published(spec, weights)) if weights is not None else None
    network, more = filled(build, options, stored, spec, rest, version)
    side = options.get("image_size") or (_usual_side(name) if weights is None and not _has_positions(name) else None)
    loaded = Loaded(network, _known_of(weights, side), [*notes, *more])
    if weights is None:
        loaded.assumed = _in_no_file(options)
    elif options.get("num_classes") not in (None, len(weights.meta["categories"])):
        del loaded.known["class_names"]
    _tell_transform(name, version, loaded, spec)
    return _in_channels(loaded, options.get("channels", 3), spec)


def _named(name: str, version: str, spec: str) -> Any:
    import torchvision.models

    try:
        return torchvision.models.get_model_weights(name)[version]
    except KeyError as error:
        names = ", ".join(item.name for item in torchvision.models.get_model_weights(name))
        raise UsageError(f"{spec}: no such weights; there are {names}") from error


def _torchvision_builder(name: str, weights: Any) -> Build:
    import torchvision.models

    def build(num_classes: int | None = None, channels: int = 3, image_size: int | None = None) -> nn.Module:
        settings: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        if num_classes is None and weights is not None:
            settings["num_classes"] = len(weights.meta["categories"])
        side = image_size or _side(weights)
        if name.startswith("vit_"):
            settings["image_size"] = side
        elif name == "maxvit_t":
            settings["input_size"] = (side, side)
        elif name in _TRANSFORMING:
            settings |= {"init_weights": False, "transform_input": weights is not None}
        return restemmed(torchvision.models.get_model(name, weights=None, **settings), channels)

    return build


def _has_positions(name: str) -> bool:
    return name.startswith("vit_")


def _side(weights: Any) -> int:
    """The side that a network is built for, which not all that have published weights were trained on."""
    return int(weights.meta["min_size"][0]) if weights is not None and min(weights.meta["min_size"]) >= _SIDE else _SIDE


def _usual_side(name: str) -> int:
    """The side of the images that the network's first published weights are for: 299 of Inception v3."""
    import torchvision.models

    published = next(iter(torchvision.models.get_model_weights(name)), None)
    return _SIDE if published is None else int(processors.of_preset(published.transforms())["image_size"])


def _fetched(spec: str, name: str, weights: Any, build: Build, image_size: int | None) -> nn.Module:
    """The network with its published weights."""
    import torchvision.models

    if image_size and _has_positions(name):
        network = build(image_size=image_size)
        network.load_state_dict(interpolated(network, _published(spec, weights)))
        return network
    with _fetching(spec, weights):
        return torchvision.models.get_model(name, weights=weights)


def _published(spec: str, weights: Any) -> dict[str, Any]:
    """The published state dict."""
    with _fetching(spec, weights):
        state = weights.get_state_dict(progress=True, check_hash=True)
    return {_OLD_DENSENET.sub(r"\1\2.", name): value for name, value in state.items()}


@contextmanager
def _fetching(spec: str, weights: Any) -> Iterator[None]:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    remedy = f"fetch {weights.url} elsewhere and give --weights FILE, or put it into {file.parent} ($TORCH_HOME)"
    with fetching(spec, weights.url, file.exists(), remedy), cache.once(str(weights.url)):
        yield


def _known_of(weights: Any, side: int | None = None) -> processors.Known:
    """Preprocessing and class names of published weights; ImageNet's usual ones where there are none."""
    if weights is None:
        return {"image_size": side or _SIDE, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    known = processors.of_preset(weights.transforms())
    if side and side != known["image_size"]:
        known |= {"image_size": side, "resize_size": known["resize_size"] * side // known["image_size"]}
    return known | {"class_names": weights.meta.get("categories")}


def _renamed(stored: Stored) -> Stored:
    def new(names: Any) -> Any:
        return {_OLD_DENSENET.sub(r"\1\2.", name): value for name, value in names.items()}

    return replace(stored, values=new(stored.values), folders=new(stored.folders), metadata={})


def _tell_transform(name: str, version: str, loaded: Loaded, spec: str) -> None:
    """``transform_input`` changes what the network computes, and is in no weights."""
    if name in _TRANSFORMING and version:
        loaded.settings.append("transform_input")
    elif name in _TRANSFORMING:
        loaded.notes.append(
            f"{spec}: transform_input is in no weights, and taken to be off, as in a network trained from scratch; "
            f"for one that began with published weights say {spec}@DEFAULT with the same --weights"
        )


def _in_no_file(options: Options) -> set[str]:
    """What of the preprocessing a checkpoint did not tell."""
    return {"mean", "std"} | ({"image_size"} - options.keys())


def _in_channels(loaded: Loaded, channels: int, spec: str) -> Loaded:
    """``loaded`` for images of so many channels, where its mean and deviation are those of three."""
    known = loaded.known
    known["channels"] = channels
    if channels == 1 and len(known["mean"]) == 3:
        known["mean"], known["std"] = (round(sum(known[name]) / 3, 4) for name in ("mean", "std"))
        loaded.notes.append(
            f"{spec}: the file's network takes grey images: the mean of the three channels' mean and std is assumed, "
            f"{known['mean']} and {known['std']}"
        )
    elif channels not in (1, len(known["mean"])):
        del known["mean"], known["std"]
    return loaded


# -- timm --------------------------------------------------------------------------------------------------------------


def load_timm(name: str, stored: Stored | None, image_size: int | None = None, channels: int | None = None) -> Loaded:
    """timm's ``NAME``, filled with ``stored`` if that is given.

    Args:
        image_size, channels: what the user asks for, if anything: published weights are made to fit, as timm does.

    Raises:
        UsageError: timm is not installed or knows no such network, there is no way to its weights, or ``stored`` does
            not fit.
    """
    spec = f"timm:{name}"
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"{spec}: timm is not installed; pip install 'regrad[timm]'") from error
    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"{spec}: timm knows no such model{nearest(name.partition('.')[0], timm.list_models())}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UsageError(f"{spec}: timm knows no such weights: {error}") from error
    side = config.input_size[1] if config.input_size[1] == config.input_size[2] else 0

    def build(
        num_classes: int | None = None, channels: int = 3, image_size: int | None = None, **further: Any
    ) -> nn.Module:
        settings = {"num_classes": num_classes, "img_size": image_size if image_size != side else None}
        given = {key: value for key, value in settings.items() if value is not None}
        try:
            return timm.create_model(name, in_chans=channels, **given, **further)
        except TypeError:
            if "img_size" not in given:
                raise
            given.pop("img_size")  # it takes images of any size
            return timm.create_model(name, in_chans=channels, **given, **further)

    if stored is None:
        with _published_timm(spec, config):
            options: Options = {"channels": channels or config.input_size[0]}
            options |= {"image_size": image_size} if image_size else {}
            network = build(**options, pretrained=True)
        notes: list[str] = []
    else:
        options, notes = needs(build, stored, spec, image_size, side)
        try:
            network, more = filled(build, options, stored, spec)
        except UsageError as plain:
            network, more = _converted(build, options, stored, plain), []
            notes.append(f"{spec}: {stored.what} is not as timm's network is now; timm's own conversion was applied")
        notes += more
    if getattr(network, "num_classes", None) == 0:
        raise UsageError(
            f"{spec}: has no classes, it gives features; a fine-tuned one with a head is needed (--weights)"
        )
    known = processors.of_timm(timm.data.resolve_model_data_config(network))
    size = options.get("image_size")
    if size:
        known |= {"image_size": (size, size), "resize_size": math.floor(size / (config.crop_pct or 1))}
    if config.crop_mode not in ("center", "squash"):
        notes.append(
            f"{spec}: was evaluated with timm's crop mode {config.crop_mode}; pictures are cropped at the centre"
        )
    loaded = Loaded(network, known, notes, assumed=_in_no_file(options) if stored else set())
    return _in_channels(loaded, options.get("channels", 3), spec)


def _converted(build: Build, options: Options, stored: Stored, plain: UsageError) -> nn.Module:
    """The network with what timm's own conversion of checkpoints makes of ``stored``; ``plain`` where that fails."""
    fitted = states.fit_names(stored, states.shapes_of(build(**options).state_dict()))
    overlay = {"state_dict": dict(fitted.state), "label_offset": 0, "custom_load": False, "source": None}
    if "num_classes" in options:
        overlay["num_classes"] = options["num_classes"]
    try:
        network = build(**options, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:
        raise plain from error
    network.pretrained_cfg.pop("state_dict", None)  # type: ignore[operator, union-attr]
    return network


@contextmanager
def _published_timm(spec: str, config: Any) -> Iterator[None]:
    if not config.has_weights:
        raise UsageError(f"{spec}: timm has no published weights for it; give --weights URI")
    remedy = (
        f"give --weights FILE (elsewhere: torch.save(timm.create_model({spec.partition(':')[2]!r}, "
        "pretrained=True).state_dict(), FILE)), or bring the cache of another machine ($HF_HOME, $TORCH_HOME)"
    )
    url = str(config.url)
    here = (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).exists()
    if config.hf_hub_id:
        from huggingface_hub import constants

        url = constants.ENDPOINT
        folder = Path(constants.HF_HUB_CACHE) / f"models--{config.hf_hub_id.replace('/', '--')}" / "snapshots"
        here = any(next(folder.glob(pattern), None) for pattern in _WEIGHTS_FILES)
    with fetching(spec, url, here, remedy, asks=bool(config.hf_hub_id)):
        yield
