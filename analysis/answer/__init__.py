"""The practical answer: how many images of which kind to add, and what they cost."""
