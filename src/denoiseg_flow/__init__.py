"""DenoiSeg-Flow: joint denoising and segmentation of sparsely annotated microscopy images."""

__version__ = "0.1.0"
