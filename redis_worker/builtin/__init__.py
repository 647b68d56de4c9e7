"""The parsers and processors that come with redis-worker."""
