"""What the score table calls its columns, for whoever names them and reads no table."""

from __future__ import annotations

#: The columns of every table, before those of the scores.
FIXED = ("id", "source", "row", "label", "prediction", "confidence", "nll", "digest")
#: The columns of several numbers a row, which an output has where a setting asks for them: after those of the scores.
SEVERAL = {"logits": "logits", "prediction_set": "coverage"}
STANDARD_ERROR = "_se"  # ends the column of a score's standard error
