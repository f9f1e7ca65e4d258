"""From scores to tables, figures and HTML pages."""
