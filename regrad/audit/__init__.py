"""The nightly audit: what is new against a baseline and the nights before, gates over it, and its history."""
