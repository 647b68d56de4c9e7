"""Push: events for WebSocket clients at `/ws`."""
