"""From a results table to an answer: cells, fits, conclusions, figures and the report. Knows no
grid and no torch.
"""
