"""What is read from run folders afterward. Reads files only: no model, no torch."""
