"""From the scores of single images to the comparison tables."""
