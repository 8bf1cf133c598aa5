"""What is done to a network before anything is differentiated."""
