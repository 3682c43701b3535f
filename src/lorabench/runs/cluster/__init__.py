"""A cluster: what travels between the head, which schedules and keeps, and the nodes, which do runs."""
