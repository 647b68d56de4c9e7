"""Files for deployment, and their checks."""
