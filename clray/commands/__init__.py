"""The commands of ``clray``, a file for each thing that one can want of it; ``clray.cli`` puts them together."""
