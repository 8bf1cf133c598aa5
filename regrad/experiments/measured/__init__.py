"""The measurements behind the paper's tables, one a file."""
