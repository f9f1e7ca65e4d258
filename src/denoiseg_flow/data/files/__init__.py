"""Read image files of any supported format, piece by piece."""
