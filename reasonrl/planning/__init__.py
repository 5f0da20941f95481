"""What a run needs before it starts: memory from a rehearsal of its step without data, then time and money."""
