"""Open, build, drive, save, resume and end a run."""
