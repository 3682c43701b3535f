"""One file an executor: where runs are done."""
