"""What becomes of a finished run: merged, converted and written where other programs load it."""
