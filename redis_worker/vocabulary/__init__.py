"""The words everything else is said in: tasks, payloads, processors, errors. Knows nothing of Redis."""
