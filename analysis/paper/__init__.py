"""The paper's published tables, and its equations fitted again from them."""
