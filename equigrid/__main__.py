"""`python -m equigrid`: the command `equigrid`."""

from equigrid.grid.cli import main

if __name__ == "__main__":
    main()
