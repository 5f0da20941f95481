"""The tasks of reasoning-gym as one task and one reward of reasonrl."""
