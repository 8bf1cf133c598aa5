"""The networks of the tables: that each can be built, and that training is seeded and done once."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from regrad import Classifier, UsageError
from regrad.experiments.material import experiments, models, packs
from regrad.experiments.material.image_sets import IMAGE_SETS
from regrad.experiments.material.packs import Packs
from tests.experiments.digits import write_packs

ALL = (*experiments.SEPARATION, *experiments.SVHN_TRAINED, *experiments.ARCHITECTURE, *experiments.IMAGENET)
CLASSES = {"cifar100": 100, "efficientnet": 1000}


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_can_be_built_and_has_as_many_classes_as_its_images(name: str) -> None:
    model = models.MODELS[name]
    assert not (model.weights and model.recipe)
    assert model.seeds == ("training" if model.recipe else "noise")
    classes = Classifier.load(model.spec).num_classes
    known = {each.known for each in ALL if each.model == name}
    assert classes == next((count for part, count in CLASSES.items() if part in name), 10)
    assert known <= IMAGE_SETS.keys()


@pytest.mark.parametrize("experiment", ALL, ids=lambda each: f"{each.model} {each.name}")
def test_no_network_is_judged_on_what_it_was_trained_on(experiment: experiments.Experiment) -> None:
    recipe = models.MODELS[experiment.model].recipe
    judged = IMAGE_SETS[experiment.known].pack
    trained = recipe.pack if recipe else models.MODELS[experiment.model].fit_pack
    assert trained != judged
    if trained in packs.SPLITS:
        assert packs.SPLITS[judged].pack == packs.SPLITS[trained].pack
        assert packs.SPLITS[judged].stop == packs.SPLITS[trained].start


def test_published_weights_are_those_of_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data/weights").mkdir(parents=True)
    (tmp_path / "data/weights/resnet20-cifar10.safetensors").write_bytes(b"x")
    source = Packs(str(tmp_path / "data"), str(tmp_path / "cache"))
    found = {models.weights("resnet20-cifar10", seed, source, str(tmp_path / "made")) for seed in (0, 1)}
    assert found == {str(tmp_path / "data/weights/resnet20-cifar10.safetensors")}
    with pytest.raises(UsageError, match=r"no weights/densenet100-cifar10\.safetensors here"):
        models.weights("densenet100-cifar10", 0, source, str(tmp_path / "made"))


def test_a_seed_is_a_training_and_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packs(tmp_path / "data", mnist_train=slice(0, 200))
    recipe = models.Recipe("mnist-train.parquet", epochs=1, limit=120)
    model = models.Model("small", "regrad.networks:mnist_cnn", "mnist-train.parquet", recipe=recipe)
    monkeypatch.setitem(models.MODELS, "small", model)
    source, folder = Packs(str(tmp_path / "data"), str(tmp_path / "cache")), str(tmp_path / "made")
    places = [models.weights("small", seed, source, folder) for seed in (0, 1)]
    states = [safetensors.torch.load_file(place) for place in places]
    assert not all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    again = models.weights("small", 0, source, str(tmp_path / "elsewhere"))
    assert all(torch.equal(value, states[0][key]) for key, value in safetensors.torch.load_file(again).items())
    monkeypatch.setattr(models, "_train", lambda *_: pytest.fail("trained again"))
    assert [models.weights("small", seed, source, folder) for seed in (0, 1)] == places
