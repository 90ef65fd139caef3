"""Classifiers: recipes, models, data on the device, training, evaluation. Know no grid and no
Ray.
"""
