"""The run folder and the models saved in it."""
