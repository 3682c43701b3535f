"""From the user's files to rows, whatever the format; what of a row is text is decided elsewhere (`corpora.fields`).

`read.read_rows(path)` yields `(where, row)`: a row is a mapping of fields, or a string of a file that has no fields;
`where` says where it stands, for messages. `draw.draw_rows` yields those of evenly spread parts of large files.
A format is one module with a function from a path to rows, which `read.READERS` names. `gather` finds a path's files.
"""
