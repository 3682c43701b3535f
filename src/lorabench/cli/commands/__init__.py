"""The commands, by what they are about. Each does what the function of its name does from Python."""
