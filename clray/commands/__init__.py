"""The commands of ``clray``, one file for each purpose; ``clray.cli`` puts them together."""
