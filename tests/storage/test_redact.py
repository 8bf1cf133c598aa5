import json
import math

import pytest

from regrad.storage import mask, published
from regrad.storage.redact import holds_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("s3://key:sec/re+t@bucket/a", "s3://***@bucket/a"),  # half of the secrets of AWS hold a slash
        ("s3://key@bucket/a", "s3://***@bucket/a"),
        ("copy s3://a:b@c to s3://d:e/f@g", "copy s3://***@c to s3://***@g"),
        ("https://host/a.tar?X-Amz-Signature=1", "https://host/a.tar?***"),
    ],
)
def test_credentials_are_known_and_masked(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert holds_credentials(text)


@pytest.mark.parametrize("text", ["s3://bucket/photo@2x.png", "http://host:9000/bucket/photo@2x.png", "a@b.c"])
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert mask(text) == text
    assert not holds_credentials(text)


def test_secrets_of_the_environment_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "short")
    assert mask("the key wJalrXUtnFEMI/K7MDENG is short") == "the key *** is short"


def test_published_masks_credentials_and_is_plain_json() -> None:
    report = {"a": ["s3://key:secret@bucket/x", {"b": math.inf, "c": (1, None)}], "s3://k:s@b": 1.5}
    text = json.dumps(published(report), allow_nan=False)
    assert "secret" not in text
    assert "k:s@" not in text
    assert json.loads(text) == {"a": ["s3://***@bucket/x", {"b": "inf", "c": [1, None]}], "s3://***@b": 1.5}
