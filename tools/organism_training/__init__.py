"""How the built-in model is made: batches, model, SAEs, measurements, graded sets and the card."""
