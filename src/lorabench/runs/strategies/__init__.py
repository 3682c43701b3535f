"""One file a strategy: which runs are done, in which order and how far."""
