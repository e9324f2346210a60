"""Room recording."""
