"""Scores of predictions, and the quality of data, predictions and models."""
