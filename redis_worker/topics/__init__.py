"""Topics: handlers for messages, by name or by pattern, many in one process."""
