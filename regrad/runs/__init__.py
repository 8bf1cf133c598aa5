"""What report, comparison, audit, filter and selection all read: runs as streams of rows, and counts of them."""
