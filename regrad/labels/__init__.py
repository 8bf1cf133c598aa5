"""What labels and a network say of each other: labels that it contradicts, and its accuracy without any."""
