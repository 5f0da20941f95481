"""What is read from run folders afterwards. Reads files only: no model, no torch."""
