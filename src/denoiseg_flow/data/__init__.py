"""Images from any source, in one canonical form: readers, simulator, manifest, split, noise."""
