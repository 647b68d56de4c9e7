"""Kafka as a source of messages: a leaf that needs the extra `kafka`."""
