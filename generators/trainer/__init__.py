"""What every training of a generator does with its networks: steps, memory, compiling, its log."""
