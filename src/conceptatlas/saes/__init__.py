"""Room saes."""
