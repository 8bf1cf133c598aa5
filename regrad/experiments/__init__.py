"""The paper's tables measured again, and the engines timed beside others. Not part of the wheel."""
