"""`python -m equigrid.grid.cli`."""

from equigrid.grid.cli import main

if __name__ == "__main__":
    main()
