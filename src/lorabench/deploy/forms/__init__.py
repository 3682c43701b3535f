"""Forms in which a run is taken away, one file a kind."""
