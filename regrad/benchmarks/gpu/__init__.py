"""All that is to be known of a GPU, measured by one command that needs no more than PyTorch, NumPy and Pillow."""
