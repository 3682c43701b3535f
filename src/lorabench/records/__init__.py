"""The run record: what was measured, on what, from what. Everything else that lorabench shows is built from it."""
