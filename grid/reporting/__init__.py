"""What a person sees of a grid: progress, status, costs, the report."""
