"""What flags an image, as it is typed."""

import pytest

from regrad.errors import UsageError
from regrad.runs import rule


@pytest.mark.parametrize("text", ["quantile=1", "quantile=0", "quantile=x", "quantile=nan", "nan", "high"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"quantile=0\.95"):
        rule.parse_rule(text)
