import math
import re
from pathlib import Path

import pytest

from regrad.errors import UsageError
from regrad.pipeline.options import OPTIONS, Options, parse

REQUIRED = ("in.tar", "--model", "timm:resnet18", "--output", "out")


def parsed(*arguments: str) -> Options:
    return parse(arguments, "score", "what it does")


def test_defaults_are_those_of_the_library() -> None:
    import inspect

    from regrad import Scorer

    options = parsed(*REQUIRED)
    parameters = inspect.signature(Scorer).parameters
    for option in OPTIONS:
        if option.role == "scorer":
            default = parameters[option.key].default
            assert options.values[option.key] == (list(default) if isinstance(default, tuple) else default)


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "inputs: [a.tar, b.tar]\nmodel: m:f\noutput: out\n"
        "sigma: 0.1\nsamples: 3\ndepth-decay: .inf\nscores: [entropy]\n"
    )
    options = parsed("--config", str(file), "--sigma", "0.2")
    assert options.inputs == ["a.tar", "b.tar"]
    assert (options.sigma, options.samples, options.depth_decay, options.scores) == (0.2, 3, math.inf, ["entropy"])
    assert parsed("c.tar", "--config", str(file)).inputs == ["c.tar"]


def test_values_are_understood() -> None:
    options = parsed(*REQUIRED, "--mean", "0.1,0.2,0.3", "--std", "0.5", "--image-size", "32x48", "--scores", "a, b")
    assert (options.mean, options.std, options.image_size, options.scores) == (
        [0.1, 0.2, 0.3],
        0.5,
        [32, 48],
        ["a", "b"],
    )
    assert parsed(*REQUIRED, "--depth-decay", "inf", "--image-size", "224").of("model")["image_size"] == 224


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sigma", "much"), "--sigma 'much': must be a finite number of at least 0; it is: deviation"),
        (("--samples", "1.5"), "--samples '1.5'"),
        (("--limit", "0"), "--limit '0'"),
        (("--unit-rows", "-3"), "--unit-rows '-3'"),
        (("--max-quarantined", "101%"), "--max-quarantined '101%'"),
        (("--image-size", "3x4x5"), "--image-size"),
        (("--engine", "exat"), r"'exat' \(choose from auto, exact, sketch, reference\) \(did you mean exact\?\)"),
        (("--sigam", "1"), r"unrecognized arguments: --sigam \(did you mean --sigma\?\)"),
    ],
)
def test_wrong_values_are_named(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parsed(*REQUIRED, *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sigam: 1", r"unknown sigam \(did you mean sigma\?\); the names are inputs, batch-size"),
        ("engine: exat", r"engine 'exat': must be one of auto, exact, sketch, reference \(did you mean exact\?\)"),
        ("sigma: much", "sigma 'much': must be a finite number of at least 0; it is: deviation"),
        ("replace: 3", "replace 3"),
        ("- a\n- b", "must hold `name: value` lines"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UsageError, match=message):
        parsed(*REQUIRED, "--config", str(tmp_path / "c.yaml"))
    with pytest.raises(UsageError, match="no such file"):
        parsed(*REQUIRED, "--config", str(tmp_path / "d.yaml"))


def test_what_is_required_is_named() -> None:
    with pytest.raises(UsageError, match="INPUT, --model, --output missing"):
        parsed()
    assert parsed("--list-scores").list_scores


@pytest.mark.parametrize("flag", ["--num-workers", "--cpus-per-worker", "--gpus-per-worker", "--decode-workers"])
def test_without_ray_there_are_no_workers(flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} with --ray-address none: without Ray there are no workers"):
        parsed(*REQUIRED, "--ray-address", "none", flag, "1")
    assert parsed(*REQUIRED, "--ray-address", "none").ray_address == "none"


def test_what_lies_behind_a_limit_is_not_forgotten() -> None:
    with pytest.raises(UsageError, match="--rescan with --limit would forget what lies behind the limit"):
        parsed(*REQUIRED, "--rescan", "--limit", "3")


def test_help_describes_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(text.count(f"  --{option.name} ") + text.count(f"  --{option.name}\n") == 1 for option in OPTIONS)
    assert "such as 1%;" in text
    groups = re.findall(r"^([a-z ]+):$", text, re.MULTILINE)
    assert groups == ["most used", "input", "model", "scores", "engine", "run", "cluster"]
    first = text[text.index("most used:") : text.index("\ninput:")]
    assert re.findall(r"^  --([a-z-]+)", first, re.MULTILINE) == ["model", "weights", "output", "scores", "dry-run"]
    assert "50,000,000" in text  # of --max-pixels, as people write it


def test_choices_are_those_of_the_library() -> None:
    """Which torch would have to be imported for; the table is read without it."""
    from regrad import precision
    from regrad.gradients import layers, passes
    from regrad.models import outputs
    from regrad.scores.draws import posterior, predictions

    assert {option.key: set(option.kind.choices) for option in OPTIONS if option.kind.choices} == {
        "outputs": set(outputs.OUTPUTS),
        "engine": {"auto", *passes.ENGINES},
        "precision": set(precision.PRECISIONS),
        "noise_space": {"normalized", "pixel"},
        "layers": set(layers.GROUPINGS),
        "dropout_at": set(predictions.DROPOUT_PLACES),
        "fit_structure": set(posterior.STRUCTURES),
    }
