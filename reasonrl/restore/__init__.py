"""What a plugin's code may change of the process without meaning to is put back after every call."""
