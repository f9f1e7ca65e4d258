"""A trained model: its file, and its predictions of an image of any size."""
