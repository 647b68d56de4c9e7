"""The dashboard: a page that shows the whole fleet, and acts on it."""
