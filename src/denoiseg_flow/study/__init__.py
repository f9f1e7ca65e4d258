"""Expand a config into runs, check them and estimate their costs; needs no PyTorch."""
