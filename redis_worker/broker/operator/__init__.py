"""Questions and commands of operators: status, depth, dead letters, pause, doctor."""
