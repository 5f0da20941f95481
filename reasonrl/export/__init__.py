"""Export the model of a run: as a model folder, an adapter or a GGUF file, with a model card, and to the hub."""
