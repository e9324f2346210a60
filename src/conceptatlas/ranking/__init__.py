"""Room ranking."""
