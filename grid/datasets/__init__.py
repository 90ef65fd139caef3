"""Labelled image sets: sources, ingest, shards, subsets."""
