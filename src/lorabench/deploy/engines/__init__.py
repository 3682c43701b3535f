"""Programs that run forms, one file each."""
