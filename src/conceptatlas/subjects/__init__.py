"""Room subjects."""
