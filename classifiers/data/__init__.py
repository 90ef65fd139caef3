"""Training images on the device: mixes, batches, augmentation, and the draws of each."""
