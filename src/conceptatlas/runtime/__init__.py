"""How work runs: threads and what each keeps, streams of a GPU, memory. Imports ``base`` only."""
