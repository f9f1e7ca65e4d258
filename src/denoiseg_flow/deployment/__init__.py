"""Predict new images with a trained model, or package the model for other programs."""
