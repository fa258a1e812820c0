"""Methods for class-incremental streams, one file each: replay in a single pass, with one head for all classes."""
