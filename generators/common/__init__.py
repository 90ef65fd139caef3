"""What several kinds of generators share: pools, noise, pixels, weights, decoding."""
