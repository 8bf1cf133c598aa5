"""A map of what the network sees in the images of a run: which ones, where they lie, and a figure of them."""
