"""What a run leaves to be seen: metrics, transcripts, progress."""
