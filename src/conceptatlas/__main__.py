"""``python -m conceptatlas``: the same as the ``conceptatlas`` command."""

from conceptatlas.cli.app import main

if __name__ == "__main__":
    main()
