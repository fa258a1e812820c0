"""The draws of the papers' official codes, one file a code."""
