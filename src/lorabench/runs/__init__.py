"""Where and when runs happen: leases between processes, and stopping in good order."""
