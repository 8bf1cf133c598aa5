"""Two runs on the same images, side by side."""
