"""Noise, accuracy surfaces, and the equivalence curves that follow from them."""
