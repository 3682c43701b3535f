"""Attaching adapters to the frozen base, saving them in PEFT's format, and detaching them without a trace."""
