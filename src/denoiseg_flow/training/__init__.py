"""Train the model of a method on images."""
