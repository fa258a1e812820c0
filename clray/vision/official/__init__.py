"""The random draws of the papers' official codes, one file for each code."""
