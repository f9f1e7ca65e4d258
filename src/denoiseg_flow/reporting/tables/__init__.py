"""From the scores of single images to comparison tables, rankings and recommendations."""
