"""`python -m equigrid.grid.cli`."""

from equigrid.grid.cli.entry import main

if __name__ == "__main__":
    main()
