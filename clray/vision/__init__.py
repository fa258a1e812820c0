"""The vision track: streams of labelled images."""
