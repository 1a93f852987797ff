"""Options and the command line; see `config.py` and `cli.py`."""
