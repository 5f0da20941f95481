"""Policy-gradient algorithms without a critic, a bundled plugin: GRPO and its family."""
