"""Conversations: the loop between a rollout backend and a task that replies, outside of both."""
