"""How fast this machine trains and evaluates a given model, next to the limit that its own matrix products set."""
