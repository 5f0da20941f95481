"""The life of a run: open it, build its parts, drive it, save it, resume it, end it."""
