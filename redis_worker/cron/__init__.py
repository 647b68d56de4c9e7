"""Cron jobs: when they are due, and who of a fleet runs them."""
