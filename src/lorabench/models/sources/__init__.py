"""The kinds of source of the catalogue's models, one file each: the file's name is the `source` of an entry.

`SOURCE` in the file is the class of its entries: a `ModelEntry` with the fields of the kind, and how one is located.
"""
