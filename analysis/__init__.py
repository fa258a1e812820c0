"""Reads the results store, puts our numbers beside the published ones, and judges each cell. It never trains.

``aggregate`` turns records into runs, ``verdict`` holds the statistics, ``tables`` compares and prints, ``plots``
draws, ``report`` writes the page. Importing any of them loads neither torch nor ray nor wandb.
"""
