"""What the tables are measured on: image sets, networks, tasks and methods."""
