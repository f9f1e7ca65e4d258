"""Parts of a method: definition, masking, networks, losses, denoisers, segmenters, instances."""
