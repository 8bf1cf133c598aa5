"""From sources to samples: the kinds of shards, what an INPUT argument names, and how an image is decoded."""
