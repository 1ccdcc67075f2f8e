"""Training: the one fit loop, its batches, its checkpoints and what it writes down."""
