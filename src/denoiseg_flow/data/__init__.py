"""From any source of images to the prepared, split and noisy images that later steps read."""
