"""What the score table calls its columns, for whoever names them and reads no table."""

from __future__ import annotations

#: The columns of every table, before those of the scores.
FIXED = ("id", "source", "row", "label", "prediction", "confidence", "nll", "digest")
STANDARD_ERROR = "_se"  # ends the column of a score's standard error
