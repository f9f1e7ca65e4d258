"""Parts of a method: definition, masking, networks, losses, classical denoisers, instances."""
