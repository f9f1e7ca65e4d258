"""Image files of any format, read piece by piece."""
