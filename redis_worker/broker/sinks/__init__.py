"""Sinks in Redis: destinations of what the handlers of a Kafka worker return."""
