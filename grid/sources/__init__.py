"""Where datasets come from, a module per family; `grid.datasets.SOURCES` names them."""
