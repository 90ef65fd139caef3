"""Zero-shot classification with synthetic images of the unseen classes (the paper's Appendix
G.2).
"""
