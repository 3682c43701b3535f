"""How good a model is on a text, and how sure one can be."""
