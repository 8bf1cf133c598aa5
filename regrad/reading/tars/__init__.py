"""A tar as WebDataset writes it: its members, the samples that they make up, and where it may be cut."""
