"""Many workers and cron jobs from one file, run as a service or inside a host application."""
