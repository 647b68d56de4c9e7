"""Cron jobs: each instant runs once in a fleet of processes."""
