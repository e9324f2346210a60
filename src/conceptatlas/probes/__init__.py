"""Room probes."""
