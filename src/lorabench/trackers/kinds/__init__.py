"""Every kind of tracker, one file each: the file's name is the tracker's, its `TRACKER` says how it is made."""
