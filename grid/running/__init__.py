"""The driver and what it drives: the one room, with `jobs.ray_train`, that knows Ray."""
