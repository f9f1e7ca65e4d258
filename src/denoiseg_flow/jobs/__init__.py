"""What a job needs on any machine: log, lock, device, checksums, seeds, complete folders."""
