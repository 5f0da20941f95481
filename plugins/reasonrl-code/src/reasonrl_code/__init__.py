"""Programs as answers: a sandbox for Python, tests as a reward, and a tool. Imports nothing; the sandbox imports it."""
