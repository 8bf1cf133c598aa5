"""What a user of the library relies on: invariance, an untouched network, clear refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regrad import Classifier, Scorer, UsageError, perturb
from regrad.errors import RegradError
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.passes import Passes
from regrad.gradients.reference import ReferenceEngine
from regrad.gradients.sketching.sketch import SketchEngine
from regrad.network import hooks, memory
from regrad.network.copies import private_copy
from regrad.scores import SCORES
from tests.networks import NETWORKS, SIZE, WITHOUT_RULE, SmallResNet, build

ALL = ("regrad", "exgrad", "entropy", "max_probability")


def _classifier(name: str = "BatchNorm CNN", dtype: torch.dtype = torch.float32) -> Classifier:
    return Classifier(build(name, dtype), SIZE, mean=0.4, std=0.3)


def _images(count: int = 7) -> tuple[Tensor, list[str]]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 3, SIZE, SIZE, generator=generator), [f"image-{i}" for i in range(count)]


def _assert_same(a: dict[str, Tensor], b: dict[str, Tensor], rtol: float = 1e-6) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=0, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("name", ["BatchNorm CNN", "timm ViT"])
@pytest.mark.parametrize("space", ["normalized", "pixel"])
def test_scores_follow_their_definitions(name: str, space: str) -> None:
    """Everything from scratch in float64: noise, gradients one class at a time, sums over classes."""
    classifier = _classifier(name, torch.float64)
    images, ids = _images(2)
    images = images.double()
    got = Scorer(classifier, ALL, samples=3, tolerance=0, seed=4, noise_space=space)(images, ids)
    noise = perturb.normal(perturb.keys(4, ids), 3, images[0].numel()).reshape(2, 3, *images.shape[1:]).double() * 0.02
    copies = torch.cat([images[:, None], images[:, None] + noise], 1)
    normalized = classifier.normalize(images)
    if space == "pixel":
        copies = classifier.normalize(copies)
    else:
        copies = torch.cat([normalized[:, None], normalized[:, None] + noise], 1)
    layers = find_layers(private_copy(classifier.network), normalized)
    reference = {
        decay: ReferenceEngine(private_copy(classifier.network), layers, layer_weights(layers, decay))
        for decay in (0.0, 0.3)
    }
    p = classifier.network(normalized).softmax(1)
    wanted = {
        "regrad": (p.sqrt() * reference[0.3](copies).squared[0].sqrt()).sum(1),
        "exgrad": (p * reference[0.0](normalized[:, None]).squared[0].sqrt()).sum(1),
        "entropy": -(p * p.log()).sum(1),
        "max_probability": -p.max(1).values,
    }
    for score, value in wanted.items():
        # float32 noise is added to float64 images by both
        torch.testing.assert_close(got[score], value.detach(), rtol=1e-7, atol=0)
    assert got["prediction"].tolist() == p.argmax(1).tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("engine", ["exact", "sketch"])
def test_a_gpu_gives_the_scores_of_a_cpu(engine: str) -> None:
    images, ids = _images()
    names = [name for name, item in SCORES.items() if not item.fitted and name != "negrad"]  # which is rounding
    there, here = (
        Scorer(_classifier(dtype=torch.float64), names, samples=2, engine=engine, device=device)
        for device in ("cuda", "cpu")
    )
    _assert_same(there(images, ids), here(images, ids), rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_score_does_not_depend_on_the_batch(name: str) -> None:
    scorer = Scorer(_classifier(name), ALL, samples=2)
    images, ids = _images()
    together = scorer(images, ids)
    order = [3, 0, 6, 5, 1, 2, 4]
    pieces = [order[:1], order[1:4], order[4:]]
    parts = [scorer(images[piece], [ids[i] for i in piece]) for piece in pieces]
    _assert_same(
        {key: torch.cat([part[key] for part in parts]) for key in together}, {k: v[order] for k, v in together.items()}
    )


def test_a_score_does_not_depend_on_threads_or_memory() -> None:
    classifier = _classifier("narrow ResNet")
    images, ids = _images()
    wanted = Scorer(classifier, ALL, samples=2)(images, ids)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _assert_same(Scorer(classifier, ALL, samples=2)(images, ids), wanted)
    finally:
        torch.set_num_threads(threads)
    small = Scorer(classifier, ALL, samples=2, memory_budget=1)
    assert small._step == 1
    _assert_same(small(images, ids), wanted)


def test_forward_passes_alone_go_in_pieces_that_memory_is_kept_for(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = _classifier("narrow ResNet")
    images, ids = _images()
    names = [name for name, item in SCORES.items() if not item.fitted and item.norms is None]
    wanted = Scorer(classifier, names, samples=2, embeddings=True)(images, ids)
    monkeypatch.setattr(memory, "KEPT_BYTES", 1)
    scorer = Scorer(classifier, names, samples=2, embeddings=True)
    sizes: list[int] = []
    networks = [scorer._network, scorer._head._network, *(item._network for item in scorer._sources.values())]
    for network in networks:
        network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    _assert_same(scorer(images, ids), wanted)
    assert len(networks) == 5
    assert 2 <= min(sizes) <= max(sizes) == 3  # of seven images; none stands alone


def test_a_small_budget_splits_even_the_copies_of_an_image_for_the_sketch() -> None:
    images, ids = _images()
    wanted = Scorer(_classifier("narrow ResNet"), ALL, engine="sketch", samples=4)(images, ids)
    small = Scorer(_classifier("narrow ResNet"), ALL, engine="sketch", samples=4, memory_budget=1)
    assert small._passes is not None
    assert [run.engine.most_inputs for run in small._passes._runs] == [2, 2]
    _assert_same(small(images, ids), wanted, rtol=1e-5)


def test_a_budget_for_less_than_two_images_holds_for_the_two_that_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    images, ids = _images()
    settings: dict[str, Any] = {"engine": "sketch", "samples": 4}
    wanted = Scorer(_classifier("narrow ResNet"), ["regrad"], **settings)
    assert wanted._passes is not None
    engine = wanted._passes._runs[0].engine
    sizes: list[int] = []
    piece = SketchEngine._piece

    def watched(self: SketchEngine, x: Tensor) -> Any:
        sizes.append(len(x))
        return piece(self, x)

    monkeypatch.setattr(SketchEngine, "_piece", watched)
    budget = engine.bytes_beside + 7 * engine.bytes_per_input
    found = Scorer(_classifier("narrow ResNet"), ["regrad"], memory_budget=budget, **settings)(images, ids)
    assert max(sizes) == 7
    assert sum(sizes) == 5 * len(images)
    _assert_same(found, wanted(images, ids), rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_callers_network_stays_as_it_was(name: str) -> None:
    network = build(name, torch.float32).train()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(network.parameters()).requires_grad_(False)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    before = _visible(network)
    images, ids = _images(2)
    Scorer(Classifier(network, SIZE), ALL, samples=1)(images, ids)
    assert _visible(network) == before
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    assert all(bool((parameter.grad == 1).all()) for parameter in network.parameters())


def _visible(network: nn.Module) -> list[Any]:
    modules = [
        (name, module.training, len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
        for name, module in network.named_modules()
    ]
    return modules + [(name, id(value), value.requires_grad) for name, value in network.named_parameters()]


def test_a_cut_changes_a_score_by_less_than_the_tolerance() -> None:
    classifier = _classifier("ResNet")
    images, ids = _images()
    whole = Scorer(classifier, samples=2, tolerance=0)
    cut = Scorer(classifier, samples=2, tolerance=0.05)
    assert whole.plan["first_layer"] == 1
    assert cut.plan["first_layer"] > 1
    a, b = whole(images, ids)["regrad"], cut(images, ids)["regrad"]
    assert float(((a - b) / a).abs().max()) < 0.05
    assert float((a - b).abs().max()) > 0


def test_infinite_depth_decay_keeps_the_last_layer_alone() -> None:
    classifier = _classifier("BatchNorm CNN", torch.float64)
    images, ids = _images(3)
    got = Scorer(classifier, samples=0, depth_decay=math.inf)(images.double(), ids)["regrad"]
    features: list[Tensor] = []
    clone = private_copy(classifier.network)
    clone.fc.register_forward_pre_hook(lambda module, args: features.append(args[0]))
    p = clone(classifier.normalize(images.double())).softmax(1)
    residual = (torch.eye(5, dtype=torch.float64)[None] - p[:, None]).norm(dim=2)  # ||e_c - p||
    wanted = (p.sqrt() * residual).sum(1) * (features[0].square().sum(1) + 1).sqrt()
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=0)


def test_a_plan_can_be_handed_on() -> None:
    classifier = _classifier("ResNet")
    images, ids = _images(2)
    first = Scorer(classifier, samples=1)
    second = Scorer(classifier, samples=1, plan=first.plan)
    assert second.plan == first.plan
    _assert_same(first(images, ids), second(images, ids), rtol=0)


@pytest.mark.parametrize(("name", "shown"), [("ResNet", ""), ("timm ViT", "cls_token, pos_embed")])
def test_the_plan_names_the_parameters_without_a_rule(name: str, shown: str) -> None:
    plan = Scorer(_classifier(name), samples=1, engine="exact", tolerance=0).plan
    assert set(plan["without_rule"]) == WITHOUT_RULE[name]
    assert plan["why"].partition("image by image: ")[2] == shown
    assert json.loads(json.dumps(plan)) == plan  # as it stands in run.json


def test_without_copies_smoothed_and_clean_norms_are_one_pass() -> None:
    scorer = Scorer(_classifier(), ALL, samples=0)
    assert scorer._passes is not None
    (only,) = scorer._passes._runs
    assert len(only.kinds) == 2


def test_an_image_the_network_breaks_on_has_no_score_and_costs_no_other_its_own() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build("BatchNorm CNN", torch.float32)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) / (x.flatten(1).max(1).values < 4)[:, None].float()

    images, ids = _images(4)
    images[2, 0, 0, 0] = 5
    scorer = Scorer(Classifier(Breaks(), SIZE), ALL, samples=2)
    got = scorer(images, ids)
    assert [math.isnan(value) for value in got["regrad"]] == [False, False, True, False]
    rest = scorer(images[[0, 1, 3]], [ids[i] for i in (0, 1, 3)])
    _assert_same({key: value[[0, 1, 3]] for key, value in got.items()}, rest)


def test_no_images_give_empty_columns() -> None:
    got = Scorer(_classifier(), ALL)(torch.zeros(0, 3, SIZE, SIZE), [])
    assert {key: len(value) for key, value in got.items()} == dict.fromkeys(("prediction", "confidence", *ALL), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -0.1}, "sigma -0.1: must be a finite number of at least 0"),
        ({"samples": -1}, "samples -1"),
        ({"samples": 2.5}, "samples 2.5: must be a whole number of at least 0"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
        ({"depth_decay": -1.0}, "depth decay"),
        ({"noise_space": "fourier"}, "noise space 'fourier': must be one of normalized, pixel"),
        ({"engine": "magic"}, "engine 'magic': must be one of auto, exact"),
        ({"scores": ["regrat"]}, r"no score regrat \(did you mean regrad\?\); the scores are regrad, regrad_layers"),
        ({"scores": []}, "name at least one"),
        ({"scores": ["entropy", "entropy"]}, "each once"),
        ({"layers": "blocks"}, "layers 'blocks'"),
        ({"draws": 0}, "draws 0: must be a whole number of at least 1"),
        ({"theta_sigma": -1.0}, "theta sigma -1.0: must be a finite number of at least 0"),
        ({"dropout_rate": 1.0}, "dropout rate 1.0: must be a number of at least 0 and below 1"),
        ({"dropout_at": "middle"}, "dropout at 'middle': must be one of all, last"),
        ({"precision": "int4"}, "precision 'int4': must be one of float32, tf32, bfloat16"),
        ({"scores": ["perturb_x"], "samples": 0}, "perturb_x: needs noisy copies of every image, and samples is 0"),
        ({"memory_budget": 0}, "memory budget 0: must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Scorer(_classifier(), **settings)


def test_levels_score_as_the_images_that_they_are() -> None:
    scorer = Scorer(_classifier(), ["regrad", "entropy"], samples=2)
    images, ids = _images(3)
    levels = (images * 255).to(torch.uint8)
    wanted = scorer(levels.float() / 255, ids)
    for column, values in scorer(levels, ids).items():
        assert torch.equal(values, wanted[column]), column
    assert torch.equal(scorer.measure_error(levels, ids), scorer.measure_error(levels.float() / 255, ids))


def test_images_and_ids_must_fit() -> None:
    scorer = Scorer(_classifier(), ["entropy"])
    images, ids = _images(3)
    for bad in (images[:, :1], images[..., :8], images[0], (images * 255).int()):
        with pytest.raises(UsageError, match=r"float in \[0, 1\] or uint8"):
            scorer(bad, ids)
    with pytest.raises(UsageError, match="2 ids for 3 images"):
        scorer(images, ids[:2])


# -- the error of the gradients ----------------------------------------------------------------------------------------


def test_the_error_that_is_measured_is_the_scores_error() -> None:
    classifier = _classifier("ResNet", torch.float64)
    images, ids = _images(3)
    whole = Scorer(classifier, samples=2, tolerance=0)(images.double(), ids)["regrad"]
    cut = Scorer(classifier, samples=2, tolerance=0.2)
    assert cut.plan["first_layer"] > 1
    wanted = (whole - cut(images.double(), ids)["regrad"]) / whole
    found = cut.measure_error(images.double(), ids)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    assert float(wanted.min()) > 1e-4


def test_of_many_classes_some_stand_for_all() -> None:
    torch.manual_seed(0)
    network = SmallResNet(classes=40).double().eval()
    classifier = Classifier(network, SIZE, mean=0.4, std=0.3)
    images, ids = _images(3)
    whole = Scorer(classifier, samples=1, engine="reference")(images.double(), ids)["regrad"]
    cut = Scorer(classifier, samples=1, tolerance=0.1, engine="exact")
    wanted = (whole - cut(images.double(), ids)["regrad"]) / whole
    found = cut.measure_error(images.double(), ids)
    torch.testing.assert_close(found, wanted, rtol=0.3, atol=0)


def test_scores_of_few_targets_cost_no_pass_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """GradNorm alone is one backward pass; NEGrad's cotangent is zero, which takes none."""
    images, ids = _images()
    names = ("gradnorm", "negrad")
    beside = Scorer(_classifier(), (*names, "ungrad"))(images, ids)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # all images in one piece
    alone = Scorer(_classifier(), names)
    passes = []
    run = hooks._engine_run_backward
    monkeypatch.setattr(hooks, "_engine_run_backward", lambda *args, **rest: passes.append(1) or run(*args, **rest))
    found = alone(images, ids)
    assert len(passes) == 1
    torch.testing.assert_close(found["gradnorm"], beside["gradnorm"], rtol=1e-5, atol=0)
    assert float(found["negrad"].max()) < 1e-5 * float(beside["ungrad"].min())
    assert alone.measure_error(images, ids).max() < 1e-4
    assert Scorer(_classifier(), ("negrad",)).measure_error(images, ids).tolist() == [0.0] * len(ids)


def test_nothing_is_measured_where_nothing_is_estimated() -> None:
    images, ids = _images(2)
    assert Scorer(_classifier(), ("entropy",)).measure_error(images, ids) is None
    assert Scorer(_classifier(), engine="reference").measure_error(images, ids) is None


# -- engines, precision and memory -------------------------------------------------------------------------------------


def test_auto_takes_exact_where_the_sketch_cannot() -> None:
    class NoForwardMode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Linear(3 * SIZE * SIZE, 4), nn.Linear(4, 4)
            self.fc = nn.Linear(4, 400)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(self.mix(_Same.apply(self.embed(x.flatten(1))))))

    scorer = Scorer(Classifier(NoForwardMode().eval(), SIZE, mean=0.4, std=0.3), samples=1, depth_decay=0)
    assert scorer.plan["engine"] == "exact"
    assert "no forward-mode derivative" in scorer.plan["why"]


class _Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        return d


def test_standard_errors_are_columns_beside_the_scores() -> None:
    images, ids = _images(4)
    settings: dict[str, Any] = {"engine": "sketch", "samples": 1, "standard_errors": True}
    scorer = Scorer(_classifier("narrow ResNet"), ALL, **settings)
    assert scorer.names == ["regrad", "regrad_se", "exgrad", "exgrad_se", "entropy", "max_probability"]
    few = scorer(images, ids)
    many = Scorer(_classifier("narrow ResNet"), ALL, directions=64, **settings)(images, ids)
    assert float((few["regrad_se"] / many["regrad_se"]).mean()) == pytest.approx(4**0.5, rel=0.5)
    exact = Scorer(_classifier("narrow ResNet"), ALL, engine="exact", samples=1, standard_errors=True)(images, ids)
    assert exact["regrad_se"].tolist() == [0.0] * 4
    assert float(((many["regrad"] - exact["regrad"]) / many["regrad_se"]).abs().max()) < 5


@pytest.mark.parametrize("engine", ["exact", "sketch"])
@pytest.mark.parametrize("name", ["narrow ResNet", "torchvision ViT"])
def test_bfloat16_is_coarser_and_still_the_same_score(name: str, engine: str) -> None:
    images, ids = _images()
    names = [score for score, item in SCORES.items() if not item.fitted and score != "negrad"]
    fine = Scorer(_classifier(name), names, engine=engine, samples=2)(images, ids)
    coarse = Scorer(_classifier(name), names, engine=engine, samples=2, precision="bfloat16")(images, ids)
    assert float(((coarse["regrad"] - fine["regrad"]) / fine["regrad"]).abs().max()) > 1e-5
    for score in names:
        error = float(((coarse[score] - fine[score]) / fine[score]).abs().max())
        assert error < 0.05


def test_too_little_memory_splits_the_batch_and_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, ids = _images()
    wanted = Scorer(_classifier(), ALL, samples=2)(images, ids)
    said: list[str] = []
    scorer = Scorer(_classifier(), ALL, samples=2)
    scorer.warn = said.append
    run = Passes.__call__

    def limited(self: Passes, copies: Any, number: int) -> Any:
        if number > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 99 bytes")
        return run(self, copies, number)

    monkeypatch.setattr(Passes, "__call__", limited)
    _assert_same(scorer(images, ids), wanted)
    _assert_same(scorer(images, ids), wanted)
    assert said == ["out of memory with 7 images at once: going on with fewer; a memory budget avoids this"]


def test_too_little_memory_for_one_image_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: Passes, copies: Any, number: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 bytes")

    scorer = Scorer(_classifier(), samples=2)
    scorer.warn = lambda line: None
    monkeypatch.setattr(Passes, "__call__", none_left)
    with pytest.raises(RegradError, match="out of memory with a single image and its 2 copies"):
        scorer(*_images(3))


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Passes, copies: Any, number: int) -> Any:
        raise RuntimeError("size mismatch")

    scorer = Scorer(_classifier(), samples=2)
    monkeypatch.setattr(Passes, "__call__", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        scorer(*_images(3))


def test_the_error_is_measured_in_pieces_and_too_little_memory_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, ids = _images(5)
    scorer = Scorer(_classifier("ResNet"), samples=1, tolerance=0.2)
    whole = scorer.measure_error(images, ids)
    sizes: list[int] = []
    run = Scorer._copies

    def watched(self: Scorer, *arguments: Any) -> Tensor:
        found = run(self, *arguments)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(Scorer, "_copies", watched)
    small = Scorer(_classifier("ResNet"), samples=1, tolerance=0.2, memory_budget=1)
    torch.testing.assert_close(small.measure_error(images, ids), whole, rtol=1e-3, atol=1e-9)
    assert sizes == [3, 2]

    def none_left(self: Passes, copies: Any, number: int) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 bytes")

    said: list[str] = []
    scorer.warn = said.append
    monkeypatch.setattr(Passes, "error", none_left)
    assert scorer.measure_error(images, ids) is None
    assert said == ["the error of the gradients was not measured: out of memory with all layers of an image"]


@pytest.mark.parametrize(
    ("scores", "settings"),
    [
        (("regrad", "entropy"), {}),  # smoothed gradients: the clean image comes first of its copies
        (("exgrad",), {"precision": "bfloat16"}),  # a pass whose own logits are rounded
        (("perturb_x", "mc_aa"), {}),  # draws of noise, and draws that say nothing of the clean image
        (("inserted_dropout",), {}),
        (("energy", "gen"), {}),
    ],
)
def test_logits_are_those_of_the_clean_image_whatever_is_scored(
    scores: tuple[str, ...], settings: dict[str, Any]
) -> None:
    classifier = _classifier("ResNet")
    images, ids = _images(3)
    calls: list[int] = []
    scorer = Scorer(classifier, scores, samples=2, logits=True, **settings)
    forward = scorer._network.forward
    scorer._network.forward = lambda x: (calls.append(len(x)), forward(x))[1]  # type: ignore[method-assign]
    kept = scorer(images, ids)
    passes = list(calls)
    with torch.no_grad():
        wanted = classifier.network(classifier.normalize(images))
    assert kept["logits"].dtype == torch.float32
    torch.testing.assert_close(kept["logits"], wanted, rtol=1e-5, atol=1e-5)
    calls.clear()
    scorer.logits = False
    without = scorer(images, ids)
    assert calls == passes  # at no further pass
    _assert_same(without, {name: column for name, column in kept.items() if name != "logits"}, rtol=0)
    scorer.logits = True
    torch.testing.assert_close(scorer(images[:1], ids[:1])["logits"], kept["logits"][:1], rtol=1e-5, atol=1e-5)
    assert scorer(images[:0], [])["logits"].shape == (0, wanted.shape[1])
