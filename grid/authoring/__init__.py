"""Help with writing a spec: a first one for a set of images (`init`), and the list of all keys."""
