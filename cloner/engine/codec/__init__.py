"""Codes to audio, and recordings to codes: upstream's codec over padded batches, and that of a GPU over ragged ones."""
