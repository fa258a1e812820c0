"""``python -m clray`` is the ``clray`` command."""

from clray.cli import main

if __name__ == "__main__":
    main()
