"""From scores to tables, figures and pages."""
