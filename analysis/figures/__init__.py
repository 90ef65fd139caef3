"""Figures of results, fits, pools and images."""
