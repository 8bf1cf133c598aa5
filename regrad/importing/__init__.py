"""The user's own modules: found where the user works, and their faults told as theirs."""
