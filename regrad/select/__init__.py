"""Which images of a run are worth a label."""
