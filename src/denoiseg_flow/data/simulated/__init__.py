"""Simulated images with known ground truth."""
