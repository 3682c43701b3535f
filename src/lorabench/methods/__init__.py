"""Ways of adapting a frozen base, one file each: what is set, counted, attached, optimised and saved.

`METHODS` in `registry` finds the files that hold a `METHOD`; the others are what methods are made of. None of them
imports torch before something is attached, because plans and reports read methods too.
"""
