"""What every room may use: errors, atomic files, provenance, progress, consoles. Imports no room."""
