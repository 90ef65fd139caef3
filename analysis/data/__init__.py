"""Results tables as the fits need them: checked, in cells, with means and intervals."""
