"""Turns the outputs of scoring runs into numbers and a page; knows storage and the score table, never Ray."""
