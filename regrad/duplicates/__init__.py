"""Images that are there more than once, within a run and across several: alike in their bytes, or to the network."""
