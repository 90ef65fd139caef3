"""The search for a recipe on validation images, by Ray Tune; its truth is in the store."""
