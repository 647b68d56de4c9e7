"""Many workers and cron jobs from one file: in a process of their own, or inside a host application."""
