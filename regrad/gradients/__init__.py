"""Norms of class gradients, ||grad_theta log p(c | x)||, for every class of a batch of images."""
