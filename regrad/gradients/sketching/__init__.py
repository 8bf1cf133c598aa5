"""The engine that estimates: random directions, their derivatives, and what many directions have in common."""
