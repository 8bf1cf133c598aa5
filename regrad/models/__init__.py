"""Networks and weights: found by name, loaded, and trained where an example needs it."""
