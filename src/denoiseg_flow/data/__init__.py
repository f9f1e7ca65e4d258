"""Find, read and check images of any source, prepare and split them, and add noise."""
