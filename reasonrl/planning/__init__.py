"""What a run needs before it starts: memory from a dry run of one step without data, then time and money."""
