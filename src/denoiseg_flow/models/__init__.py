"""Trained models: their files, and their predictions of images of any size."""
