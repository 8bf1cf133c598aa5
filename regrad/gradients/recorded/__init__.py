"""What a forward pass leaves behind, and the norms that follow from it."""
