"""The report, as one HTML file and for a terminal."""
