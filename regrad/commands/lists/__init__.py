"""Commands that read runs and write lists of their images, where there is no more room beside the others."""
