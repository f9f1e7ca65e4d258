"""The parts of a method: definition, networks, masking, losses, classical denoisers, instances."""
