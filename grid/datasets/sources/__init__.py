"""Where datasets come from, a module per family; `equigrid.grid.datasets.catalogue.SOURCES` names
them.
"""
