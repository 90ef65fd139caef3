"""From a spec to a graph of jobs, and what of it is done. Knows no torch and no Ray."""
