"""Generators of synthetic images: a folder for each kind, none of which imports another; `registry`
knows them all.
"""
