"""Checkpoints in the formats of other programs; one file a format, `export_factory` has the table."""
