"""What the fits say: gains, equivalences, and whether they are determined."""
