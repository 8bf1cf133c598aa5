"""How deep each class goes: bounds against a search by another way, estimates against all layers of all classes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from regrad import Classifier, Scorer
from regrad.gradients import exact
from regrad.gradients.depths import Depth, Depths, class_shares, worthwhile
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.passes import MOST_TOGETHER
from regrad.network.copies import private_copy
from regrad.network.hooks import pulled_back
from regrad.network.probe import probe_images
from regrad.scores import SCORES, Inputs, Norms, score
from tests.networks import SmallResNet, build, copies

EACH = (Depth(3, 0.0, 0.9), Depth(5, 0.02, 0.5), Depth(6, 0.1, 0.3), Depth(8, 0.7, 0.0))
CLASSES = 12


def _log_p(images: int = 6, scale: float = 3.0) -> Tensor:
    torch.manual_seed(0)
    return (scale * torch.randn(images, CLASSES, dtype=torch.float64)).log_softmax(1)


def test_shares_are_what_the_formula_says_also_of_a_class_that_is_sure() -> None:
    log_p = _log_p()
    log_p[0] = torch.tensor([0.0, *[-60.0] * (CLASSES - 1)], dtype=torch.float64).log_softmax(0)
    p, powers = log_p.exp(), (0.5, 1.0, 0.0)
    lengths = (torch.eye(CLASSES, dtype=torch.float64)[None] - p[:, None]).norm(dim=2)
    lengths[0, 0] = p[0, 1:].sum().hypot(p[0, 1:].norm())  # 1 - p without the difference
    wanted = [(p**power * lengths) / (p**power * lengths).sum(1, keepdim=True) for power in powers]
    found = class_shares(log_p, powers)
    torch.testing.assert_close(found[1:], torch.stack(wanted).amax(0)[1:], rtol=1e-9, atol=0)
    torch.testing.assert_close(found[0], torch.stack(wanted).amax(0)[0], rtol=1e-6, atol=1e-12)


def test_the_corners_are_those_of_the_hull() -> None:
    torch.manual_seed(0)
    for _ in range(50):
        drawn = torch.rand(7, 2).tolist()
        candidates = [Depth(0, 0.0, 2.0), *(Depth(i + 1, left, cost) for i, (left, cost) in enumerate(sorted(drawn)))]
        found = worthwhile(candidates)
        assert found[0] == candidates[0]
        # Whatever the price of what is left out: the cheapest is a corner, and every corner is the cheapest at some.
        best = {
            min(candidates, key=lambda each, price=price: each.cost + price * each.left_out)
            for price in torch.logspace(-6, 6, 4000, dtype=torch.float64).tolist()
        }
        assert best <= set(found)
        slopes = [(b.left_out - a.left_out) / (a.cost - b.cost) for a, b in itertools.pairwise(found)]
        assert slopes == sorted(slopes)


@pytest.mark.parametrize("most", [0.0, 1e-3, 0.02, 0.1, 5.0])
def test_what_is_left_out_is_bounded_and_no_further_step_fits(most: float) -> None:
    depths, log_p = Depths(EACH, (0.5,), most), _log_p()
    chosen, shares = depths.choose(log_p), class_shares(log_p, (0.5,))
    left_out, cost = torch.tensor([[each.left_out, each.cost] for each in EACH], dtype=torch.float64).T
    total = (shares * left_out[chosen]).sum(1)
    assert bool((total <= most + 1e-12).all())
    for own, its, deep in zip(shares, chosen, total, strict=True):
        assert int(its[own.argmax()]) == 0
        by_share = its[own.argsort(descending=True)].tolist()
        assert by_share == sorted(by_share)
        # The next step, of all that are left the one that leaves out least for what it saves.
        steps = [
            (float(s * (left_out[d + 1] - left_out[d]) / (cost[d] - cost[d + 1])), float(s * left_out[d + 1 :][0]))
            for c, (s, d) in enumerate(zip(own, its.tolist(), strict=True))
            if d + 1 < len(EACH) and c != int(own.argmax())
        ]
        if steps:
            price = min(steps)[0]
            c = next(
                c
                for c, (s, d) in enumerate(zip(own, its.tolist(), strict=True))
                if d + 1 < len(EACH)
                and c != int(own.argmax())
                and float(s * (left_out[d + 1] - left_out[d]) / (cost[d] - cost[d + 1])) == price
            )
            assert float(deep + own[c] * (left_out[its[c] + 1] - left_out[its[c]])) > most
    torch.testing.assert_close(depths.cost(log_p), cost[chosen].sum(1))


def test_with_two_powers_the_bound_holds_for_either() -> None:
    log_p = _log_p()
    chosen = Depths(EACH, (0.3, 1.0), 0.02).choose(log_p)
    left_out = torch.tensor([each.left_out for each in EACH], dtype=torch.float64)[chosen]
    for power in (0.3, 1.0):
        assert bool(((class_shares(log_p, (power,)) * left_out).sum(1) <= 0.02).all())


def test_the_rest_is_estimated_by_the_mean_ratio_of_deeper_classes() -> None:
    torch.manual_seed(0)
    depths = Depths(EACH, (0.5,), 0.05)
    chosen = depths.choose(_log_p())
    squared = torch.rand(len(EACH), *chosen.shape, dtype=torch.float64).flip(0).cumsum(0).flip(0)
    squared[:, 1, 3] = 0  # a class without any gradient
    squared[3, 2] = 0  # an image whose last layer has none
    found = depths.whole(squared, chosen)
    for image in range(len(chosen)):
        known: dict[int, float] = {}
        for depth in range(len(EACH)):
            ratios = [whole / float(squared[depth, image, c]) for c, whole in known.items() if squared[depth, image, c]]
            ratio = sum(ratios) / len(ratios) if ratios else 1.0
            own = [c for c in range(CLASSES) if int(chosen[image, c]) == depth]
            known |= {c: float(squared[depth, image, c]) * ratio for c in own}
        wanted = torch.tensor([known[c] for c in range(CLASSES)], dtype=torch.float64)
        torch.testing.assert_close(found[image], wanted, rtol=1e-12, atol=0)


def test_a_plan_holds_them() -> None:
    depths = Depths(EACH, (0.5, 1.0), 0.05)
    assert Depths.of_plan({"depths": depths.in_plan()}, (0.5, 1.0)) == depths
    assert Depths.of_plan({}, (0.5,)) is None


# -- in the engine -----------------------------------------------------------------------------------------------------


def _engine(network: nn.Module, depths: Depths | None, together: bool = False) -> ExactEngine:
    own = private_copy(network)
    probe = probe_images(3, 3, (16, 16)).double()
    layers = find_layers(own, probe)
    return ExactEngine(own, layers, layer_weights(layers, 0.3), probe, copies=2, together=together, depths=depths)


def _depths_of(network: nn.Module, most: float) -> Depths:
    last = max(layer.index for layer in find_layers(private_copy(network), probe_images(3, 3, (16, 16)).double()))
    firsts = [1, last // 2, last - 1, last]
    return Depths(
        tuple(replace(each, first_layer=first) for each, first in zip(EACH, firsts, strict=True)), (0.5,), most
    )


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", ["BatchNorm CNN", "ResNet", "layer used twice", "tokens", "timm ViT"])
def test_a_class_that_goes_deep_is_exact_and_others_are_near(name: str, together: bool) -> None:
    network = build(name)
    depths = _depths_of(network, 0.05)
    x = copies(images=4, number=2)
    whole, cut = _engine(network, None)(x), _engine(network, depths, together)
    if together:
        cut.afford(1 << 40)
    found = cut(x, lambda log_p: torch.full_like(log_p, 1 / log_p.shape[1])[:, None])
    chosen = depths.choose(whole.logits[:, 0].log_softmax(1))
    assert int(chosen.amax()) > 0
    deep = chosen == 0
    torch.testing.assert_close(found.squared[0, :, :-1][deep], whole.squared[0][deep], rtol=1e-9, atol=0)
    assert not torch.allclose(found.squared[0, :, :-1], whole.squared[0], rtol=1e-9)
    ratios = found.squared[0, :, :-1] / whole.squared[0]
    assert 0.2 < float(ratios.min()) < float(ratios.max()) < 5
    # Targets that are no classes are as exact as ever, and each class alone is as in any batch.
    uniform = _engine(network, None)(x, lambda log_p: torch.full_like(log_p, 1 / log_p.shape[1])[:, None])
    torch.testing.assert_close(found.squared[..., -1], uniform.squared[..., -1], rtol=1e-9, atol=1e-20)
    turned = cut(x.flip(0)[:3]).squared.flip(1)
    torch.testing.assert_close(turned[0], found.squared[0, 1:, :-1], rtol=1e-9, atol=0)
    alone = cut(x, lambda log_p: torch.full_like(log_p, 1 / log_p.shape[1])[:, None], classes=False)
    torch.testing.assert_close(alone.squared[..., 0], uniform.squared[..., -1], rtol=1e-9, atol=1e-20)


def test_passes_end_where_no_image_goes_deeper(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("ResNet")
    depths = _depths_of(network, 0.03)
    engine, asked = _engine(network, depths), []
    monkeypatch.setattr(
        exact, "pulled_back", lambda v, y, x, *a, **k: asked.append((y, x)) or pulled_back(v, y, x, *a, **k)
    )
    x = copies(images=3, number=2)
    chosen = depths.choose(engine(x).logits[:, 0].log_softmax(1)).sort(1).values.amin(0)
    layers_asked = [len(x) for y, x in asked if y.shape[1] == 5]  # of the logits, not of what the head is given
    assert len(layers_asked) == int((chosen < 2).sum())  # from the layer before the head on there are closed forms
    assert layers_asked == sorted(layers_asked, reverse=True)
    assert layers_asked[-1] < layers_asked[0]


# -- in a score --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored() -> tuple[Classifier, Tensor, list[str]]:
    torch.manual_seed(0)
    network = SmallResNet(classes=40, width=16).double().eval()
    with torch.no_grad():
        for parameter in network.fc.parameters():  # type: ignore[union-attr]
            parameter *= 12  # so that some classes are far more probable than others
    images = probe_images(11, 3, (16, 16)).double()
    return Classifier(network, 16, mean=0.4, std=0.3), images, [str(i) for i in range(len(images))]


ADDED_UP = ("regrad", "exgrad_smoothed")
OTHERS = ("displacement", "ungrad")  # which make something else of the norms, or weigh all layers alike


def test_scores_are_within_the_tolerance_of_all_layers_of_all_classes(
    scored: tuple[Classifier, Tensor, list[str]],
) -> None:
    classifier, images, ids = scored
    whole = Scorer(classifier, ADDED_UP + OTHERS, samples=2, depth_decay=0.1, engine="reference")(images, ids)
    scorer = Scorer(classifier, ADDED_UP + OTHERS, samples=2, depth_decay=0.1, tolerance=0.02, engine="exact")
    assert len(scorer.plan["depths"]["each"]) > 2
    without = {name: value for name, value in scorer.plan.items() if name != "depths"}
    deep = Scorer(
        classifier, ADDED_UP + OTHERS, samples=2, depth_decay=0.1, tolerance=0.02, engine="exact", plan=without
    )(images, ids)
    found = scorer(images, ids)
    for name in ADDED_UP:
        assert float(((found[name] - whole[name]) / whole[name]).abs().max()) < 0.02
        assert not torch.equal(found[name], deep[name])
    for name in OTHERS:
        torch.testing.assert_close(found[name], deep[name], rtol=1e-9, atol=0)


def test_depths_are_of_the_powers_asked_for_and_none_where_a_score_needs_each_norm(
    scored: tuple[Classifier, Tensor, list[str]],
) -> None:
    def powers(names: tuple[str, ...], **settings: float) -> tuple[float, ...] | None:
        scorer = Scorer(scored[0], names, samples=2, depth_decay=0.1, tolerance=0.02, engine="exact", **settings)  # type: ignore[arg-type]
        assert scorer._passes is not None
        depths = {run.depths for run in scorer._passes._runs if run.smoothed}
        return next(each.powers if each else None for each in depths)

    assert powers(("regrad",), exponent=0.2) == (0.2,)
    assert powers(("regrad", "exgrad_smoothed")) == (0.5, 1.0)
    registered = dict(SCORES)
    try:

        @score(Norms(smoothed=True, decayed=True))
        def largest_of_all(inputs: Inputs) -> Tensor:
            """max_c ||a g_c||."""
            assert inputs.norms is not None
            return inputs.norms.amax(1)

        assert powers(("regrad", "largest_of_all")) is None
    finally:
        SCORES.clear()
        SCORES.update(registered)


def test_a_score_does_not_depend_on_what_it_is_scored_with(scored: tuple[Classifier, Tensor, list[str]]) -> None:
    classifier, images, ids = scored
    scorer = Scorer(classifier, samples=2, depth_decay=0.1, tolerance=0.02, engine="exact")
    assert scorer._passes is not None
    whole = scorer(images, ids)["regrad"]
    (run,) = scorer._passes._runs
    for step in (2, 3, 5):
        run.step = step
        torch.testing.assert_close(scorer(images, ids)["regrad"], whole, rtol=1e-9, atol=0)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1)).tolist()
    turned = scorer(images[order], [ids[i] for i in order])["regrad"]
    torch.testing.assert_close(turned, whole[order], rtol=1e-9, atol=0)


def test_few_images_are_in_a_piece_where_classes_have_depths(scored: tuple[Classifier, Tensor, list[str]]) -> None:
    classifier, _, _ = scored
    scorer = Scorer(classifier, samples=2, depth_decay=0.1, tolerance=0.02, engine="exact")
    plan = {name: value for name, value in scorer.plan.items() if name != "depths"}
    whole = Scorer(classifier, samples=2, depth_decay=0.1, tolerance=0.02, engine="exact", plan=plan)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for each, most in ((scorer, MOST_TOGETHER), (whole, 128)):
            assert each._passes is not None
            each._passes.plan_memory(1 << 40, 128)
            assert [run.step for run in each._passes._runs] == [most // 3]
    finally:
        torch.set_num_threads(threads)


def test_images_of_about_one_cost_go_together(scored: tuple[Classifier, Tensor, list[str]]) -> None:
    classifier, images, ids = scored
    scorer = Scorer(classifier, samples=2, depth_decay=0.1, tolerance=0.02, engine="exact")
    assert scorer._passes is not None
    (run,) = scorer._passes._runs
    run.step, run.twins, seen = 3, (), []
    call = run.engine.__class__.__call__
    depths = run.depths
    assert depths is not None
    costs = depths.cost(classifier.network(classifier.normalize(images)).double().log_softmax(1))

    class Watching:
        network = run.engine.network

        def __call__(self, copies: Tensor, *rest: object) -> object:
            norms = call(engine, copies, *rest)  # type: ignore[arg-type]
            seen.append(depths.cost(norms.logits[:, 0].log_softmax(1)))
            return norms

    engine, run.engine = run.engine, Watching()  # type: ignore[assignment]
    scorer(images, ids)
    torch.testing.assert_close(torch.cat(seen), costs.sort(descending=True).values, rtol=1e-6, atol=0)
