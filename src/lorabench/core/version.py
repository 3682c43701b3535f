"""The version of lorabench, as the package, its records and its pages give it."""

VERSION = "0.1.0"
