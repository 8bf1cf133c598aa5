"""What every HTML page shares: templates, styles, and small copies of images."""
