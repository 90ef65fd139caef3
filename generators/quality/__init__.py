"""Quality of pools: FID, Inception Score, diversity, the same on other features, and nearest
neighbours.
"""
