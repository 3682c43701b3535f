"""The kinds of source of the catalogue's corpora, one file each: the file's name is the `source` of an entry.

`SOURCE` in the file is the class of its entries: a `DatasetEntry` with the fields and the reading of the kind.
"""
