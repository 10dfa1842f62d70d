"""The command line: ``sasm restore | batch | degrade | ...``, one file a command."""
