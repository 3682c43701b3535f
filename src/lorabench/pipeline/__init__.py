"""The joint: the only place where data, model, adapter, training, evaluation and record meet."""
