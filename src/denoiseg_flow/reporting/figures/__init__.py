"""What the report shows as pictures."""
