"""equigrid from Python: the verbs of the command line as functions, and what they return.

`import equigrid as eg` gives all of it by short names, each imported at its first use. `verbs`
holds the functions; `plans`, `runs`, `fits` and `images` the objects.
"""
