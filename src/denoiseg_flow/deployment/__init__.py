"""A trained model on new images, or packaged for other programs."""
