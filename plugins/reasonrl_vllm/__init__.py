"""The rollout backend ``vllm``, a bundled plugin."""
