"""What can be set: the kinds of values there are, and the settings that more than one room must know."""
