"""Which images of a run are worth a label."""

DIVERSITIES = ("none", "k-center", "k-means++")
POOL = 10  # candidates by score for each image that diversity chooses
