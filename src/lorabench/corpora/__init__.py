"""From sources to documents to batches."""
