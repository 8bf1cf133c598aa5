"""Random draws that perturbation scores are functions of: of the image, the activations and the parameters."""
