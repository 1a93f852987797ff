"""Options and the command line; see `options.py` and `cli.py`."""
