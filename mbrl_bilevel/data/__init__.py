"""Data sets: from a Minari id to standardised tensors."""
