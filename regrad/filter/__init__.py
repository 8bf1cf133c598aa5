"""Which images of a run stay and which go, and shards of those that stay."""
