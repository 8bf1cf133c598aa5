"""A pre-trained network together with what its scores depend on: preprocessing, class names and a fingerprint."""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sized
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from regrad.errors import UsageError, require
from regrad.importing.modules import import_object
from regrad.models import processors, settings
from regrad.models.calls import depending_on_images_alone, taking_images
from regrad.models.factory import Loaded
from regrad.models.loading import load_network
from regrad.models.outputs import Reading, find_reading, returning_logits, returning_own
from regrad.network.head import find_head
from regrad.network.modes import evaluating, set_evaluating
from regrad.network.pictures import Preprocessing
from regrad.network.probe import probe_images

if TYPE_CHECKING:
    from regrad.calibration import Calibration

PROBED = 3  # pictures on which is seen what a network returns
_PREPROCESSING = {"image_size", "channels", "mean", "std", "interpolation", "transform"}
_PICTURE = (301, 223)
_BRIGHTEST = 2.0  # a mean of pixels from 0 to 255 is above, one from 0 to 1 below, whatever else is done to them
_LEVELS = 2.0  # of 255: libraries resample pictures a little differently
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Classifier:
    """f(normalise(image)) = logits, with the preprocessing that brings a picture to the network's input.

    Args:
        network: takes normalised images (B, channels, H, W), returns logits (B, C), or what holds them: an object or
            dict with ``logits``, a tuple, one number an image for two classes. It is never changed.
        image_size: (H, W), one number for both, or (channels, H, W). Pictures are resized, shorter side first
            (antialiased), and centre-cropped to it.
        mean, std: one number for all channels or one per channel, on the [0, 1] scale.
        class_names: C names in order, a dict of index to name or of name to index, or None.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); 3 unless ``image_size`` says otherwise.
        resize_size: the shorter side before the crop; None means "just large enough".
        transform: applied to every [0, 1] image after the crop (to invert drawings, say); same shape out.
        spec: where the network came from; part of the fingerprint.
        interpolation: Pillow's filter to resize by: bilinear, bicubic, lanczos, ...
        crop_mode: ``center``, or ``squash``: the whole picture is pressed into ``image_size``.
        scaled_jpeg: JPEGs of eight times the sides that they are resized to, or more, are decoded at a half, quarter or
            eighth of their own: faster, and other images by less than a level of 255.
        outputs: ``logits``, ``probabilities`` or ``log-probabilities``: what the network's numbers are, where they may
            be taken for something else. None refuses what looks like probabilities.

    Attributes:
        preprocessing: what a picture goes through.
        network: returns logits (B, C): the caller's, or a shallow copy with a hook that makes them.
        temperature: what its logits were divided by.
        calibration: where that came from, if from a file: prediction sets need it.
        notes: what was assumed, a line each, for whoever reads the scores.

    Raises:
        UsageError: the network does not take such images, or does not return logits (B, C).
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: Any,
        mean: Any = 0.0,
        std: Any = 1.0,
        class_names: Any = None,
        channels: Any = None,
        resize_size: Any = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        spec: str = "",
        interpolation: Any = "bilinear",
        crop_mode: str = "center",
        outputs: str | None = None,
        scaled_jpeg: bool = False,
    ) -> None:
        height, width, told = settings.image_size(image_size)
        self.channels = settings.channel_count(3 if channels is None and told is None else channels or told)
        self.image_size = (height, width)
        self.mean = settings.per_channel("mean", mean, self.channels)
        self.std = settings.per_channel("std", std, self.channels)
        require(
            {
                f"image size {image_size!r}: {told} channels, but channels says {self.channels}": told
                in (None, self.channels),
                f"mean {self.mean}: pixels are in [0, 1] here; divide mean and std by 255": max(self.mean)
                <= _BRIGHTEST,
                f"std {self.std}: every channel's deviation must be positive": min(self.std) > 0,
                f"crop mode {crop_mode!r}: one of {', '.join(settings.CROP_MODES)}": crop_mode in settings.CROP_MODES,
            }
        )
        self.preprocessing = Preprocessing(
            self.image_size,
            self.channels,
            None if resize_size is None else settings.whole("resize_size", resize_size),
            settings.interpolation(interpolation),
            crop_mode,
            transform,
            scaled_jpeg,
        )
        self.spec = spec
        names = len(class_names) if isinstance(class_names, Sized) else None
        self._bare, self._reading = self._probe(network, outputs, names)
        self.network = returning_logits(self._bare, self._reading)
        self.temperature = 1.0
        self.calibration: Calibration | None = None
        self.num_classes = self._reading.classes
        self.notes = tuple(f"{spec or 'the network'} {note}" for note in self._reading.notes)
        self.class_names = (
            None
            if class_names is None
            else settings.class_names(class_names, self.num_classes, of_two=self._reading.columns == 1)
        )

    @classmethod
    def load(
        cls,
        spec: str,
        weights: str | None = None,
        image_size: Any = None,
        channels: Any = None,
        mean: Any = None,
        std: Any = None,
        transform: str | None = None,
        temperature: float | str = 1.0,
        outputs: str | None = None,
        interpolation: str | None = None,
        scaled_jpeg: bool = False,
    ) -> Classifier:
        """The classifier that ``spec`` names, in eval mode; every other argument overrides what it says of itself.

        Args:
            spec: ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME``, or ``package.module:factory``, where ``factory()``
                returns a module, alone or with a dict of arguments of the class, or with a processor of transformers'.
            weights: URI of safetensors, of a file of ``torch.save`` with tensors, or of an index of shards; under
                whatever names and containers trainers write them. Nothing in them is executed.
            transform: ``module:function``, see the class.
            temperature: T, which logits are divided by, by way of the last layer's parameters: a network that is less
                sure (T > 1) or surer (T < 1) of the same predictions; or the URI of a file of ``regrad calibrate`` for
                this network, which has one.

        Raises:
            UsageError: unknown spec, weights that do not fit (the first keys that differ are named), or a temperature
                for a network whose logits come from no Linear layer.
        """
        given = {
            "image_size": image_size,
            "channels": channels,
            "mean": mean,
            "std": std,
            "outputs": outputs,
            "interpolation": interpolation,
            "scaled_jpeg": scaled_jpeg or None,
            "transform": _function(transform) if transform else None,
        }
        given = {name: value for name, value in given.items() if value is not None}
        height, width, _ = settings.image_size(image_size) if image_size is not None else (0, 1, None)
        loaded = load_network(
            spec, weights, height if height == width else None, settings.channel_count(channels) if channels else None
        )
        known = loaded.known | given
        if image_size is not None:
            known.pop("resize_size", None)
        if known.get("image_size") is None:
            raise UsageError(f"{spec}: the image size is unknown; give --image-size, or return it from the factory")
        if loaded.doubt and "outputs" not in known:
            raise UsageError(
                f"{spec}: its configuration says that it is of {loaded.doubt}: regrad scores networks that choose one "
                "of C classes; if this one does, say outputs=logits (--outputs logits)"
            )
        named = "|".join(filter(None, [spec, transform, *loaded.settings]))
        classifier = cls(set_evaluating(loaded.network), spec=named, **known)
        classifier.notes = (*_assumptions(spec, loaded, given), *classifier.notes)
        if loaded.preprocess is not None and not given.keys() & _PREPROCESSING:
            classifier._compare(loaded.preprocess)
        classifier._calibrate(temperature)
        return classifier

    def preprocess(self, image: Image.Image) -> Tensor:
        """A decoded picture as the [0, 1] image the scorer takes, by ``preprocessing``: float32 (channels, H, W)."""
        return self.preprocessing(image)

    def normalize(self, images: Tensor) -> Tensor:
        """(images - mean) / std on (..., channels, H, W): what the network receives."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std

    @cached_property
    def network_fingerprint(self) -> str:
        """SHA-256 over weights and ``repr(network)``: tells whether two runs used the same network."""
        # An address in memory, as of a function that a module shows, is another in every process.
        digest = hashlib.sha256(_ADDRESS.sub("", repr(self.network)).encode())
        for name, value in self.network.state_dict().items():
            for part, content in _parts(name, value):
                digest.update(part.encode())
                digest.update(content)
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, spec, ``repr(network)`` and preprocessing: equal fingerprints, equal scores."""
        settled = self.preprocessing
        preprocessing = (self.image_size, settled.resize_size, self.channels, self.mean, self.std)
        others = {
            "interpolation": settled.interpolation if settled.interpolation != "bilinear" else None,
            "crop_mode": settled.crop_mode if settled.crop_mode != "center" else None,
            "scaled_jpeg": settled.scaled_jpeg or None,
            "reading": self._reading.conversion,
            "calibration": self.calibration.digest if self.calibration else None,
        }
        # What is as it always was is left out, so that an output of an earlier version is still gone on with.
        changed = tuple(item for item in others.items() if item[1] is not None)
        content = (self.network_fingerprint, self.spec, preprocessing, *changed)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def _compare(self, preprocess: processors.Preprocess) -> None:
        """Note where ``preprocess``, the library's own, makes another image of a picture."""
        pixels = probe_images(1, 3, _PICTURE)[0].mul(255).byte().permute(1, 2, 0).numpy()
        picture = Image.fromarray(pixels)
        mine, wanted = self.normalize(self.preprocess(picture)), preprocess(picture).float()
        if mine.shape != wanted.shape:
            what = f"images of {tuple(wanted.shape)}, not {tuple(mine.shape)}"
        else:
            levels = processors.levels_apart(mine, wanted, self.std)
            what = f"other images, by {levels:.1f} of 255 levels on average" if levels > _LEVELS else ""
        if what:
            self.notes += (f"{self.spec}: the processor of its library makes {what} of a picture",)

    def _calibrate(self, temperature: float | str) -> None:
        """Take the temperature, or that of the file of this name if it is of this network."""
        if isinstance(temperature, str):
            from regrad.calibration import Calibration  # with scikit-learn, which nobody else need wait for

            self.calibration = Calibration.read(temperature)
            self.calibration.check_network(self.network_fingerprint)
            del self.network_fingerprint  # of the network before it is divided
            temperature = self.calibration.temperature
        if temperature != 1:
            self._divide_logits(temperature)
        self.temperature = float(temperature)

    def _divide_logits(self, temperature: float) -> None:
        if not 0 < temperature < math.inf:
            raise UsageError(f"temperature {temperature}: must be a positive number")
        self._bare = copy.deepcopy(self._bare)  # a factory may hand out the same one twice
        name = find_head(returning_own(self._bare, self._reading), self._received(self._bare, 2))
        if name is None:
            raise UsageError(
                f"temperature {temperature}: the logits of {self.spec} come from no Linear layer of its own"
            )
        with torch.no_grad():
            for parameter in self._bare.get_submodule(name).parameters():
                parameter.div_(temperature)
        self.network = returning_logits(self._bare, self._reading)

    def _probe(self, network: nn.Module, outputs: str | None, names: int | None) -> tuple[nn.Module, Reading]:
        """The network as it is called, and how what it returns is read."""
        what = self.spec or "the network"
        shape = (self.channels, *self.image_size)
        try:
            _refuse_empty(network)
            bare = taking_images(network)
            with evaluating(bare), torch.no_grad():
                images = self._received(bare, PROBED)
                bare = depending_on_images_alone(bare, images[:1])
                return bare, find_reading(bare, images, outputs, names)
        except UsageError as error:
            raise UsageError(f"{what} {error}") from error
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            remedy = "set --channels and --image-size"
            if isinstance(network, torch.fx.GraphModule):
                remedy = "a program takes what it was exported for alone: give the torch.nn.Module that it was made of"
            raise UsageError(
                f"{what} does not take (channels, height, width) = {shape} images: {remedy}: {lines[0]}"
            ) from error

    def _received(self, network: nn.Module, count: int) -> Tensor:
        """What ``network`` receives of seeded pictures, in its own type and place."""
        like = next((value for value in network.parameters() if value.is_floating_point()), torch.zeros(()))
        return self.normalize(probe_images(count, self.channels, self.image_size)).to(like)


def _function(spec: str) -> Callable[[Tensor], Tensor]:
    function = import_object(spec)
    if not callable(function):
        raise UsageError(f"{spec}: is a {type(function).__name__}, not a function of an image")
    return function


def _assumptions(spec: str, loaded: Loaded, given: dict[str, Any]) -> list[str]:
    """What nobody said of the preprocessing, and what was noted on the way."""
    notes = list(loaded.notes)
    assumed = [name for name in ("image_size", "mean", "std") if name in loaded.assumed - given.keys()]
    if assumed:
        words = ", ".join(f"--{name.replace('_', '-')} {_written(loaded.known[name])}" for name in assumed)
        notes.append(f"{spec}: its preprocessing is in no weights; assumed: {words}")
    if not {"mean", "std"} & (loaded.known.keys() | given.keys()):
        notes.append(f"{spec}: neither mean nor std is given: the network receives pixels from 0 to 1 as they are")
    return notes


def _written(value: Any) -> str:
    """As on the command line: a side or HEIGHTxWIDTH, numbers with commas."""
    if isinstance(value, tuple) and all(isinstance(side, int) for side in value):
        return "x".join(map(str, dict.fromkeys(value)))
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _refuse_empty(network: nn.Module) -> None:
    """Refuse a network whose weights are not there yet."""
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if isinstance(value, UninitializedParameter | UninitializedBuffer):
            raise UsageError(
                f"has a lazy layer without weights, {name}: give --weights, or call the network once before"
            )
        if value.is_meta:
            raise UsageError(f"has no weights: {name} is on the meta device; give --weights, or build it without")


def _parts(name: str, value: Any) -> Iterator[tuple[str, bytes]]:
    """An entry of a state dict as what it is and its bytes; quantised layers keep several things in one."""
    if isinstance(value, Tensor) and not value.is_quantized:
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        yield f"{name}|{value.dtype}|{tuple(value.shape)}|", content
    elif isinstance(value, Tensor):
        yield from _parts(name, value.dequantize())
    elif isinstance(value, tuple | list):
        for place, part in enumerate(value):
            yield from _parts(f"{name}[{place}]", part)
    else:
        yield f"{name}|", repr(value).encode()
