"""From a config to runs, their cost and their order; nothing here needs PyTorch."""
