"""From problems to token ids, and from scored groups to padded tensors."""
