"""Metrics of a step as the live view shows them."""


def live_metrics(step: int) -> dict[str, float]:
    return {
        "train/reward": step / 100,
        "train/accuracy": step / 100,
        "train/length_tokens": 40.0 + step,
        "policy/entropy": 0.3,
        "policy/kl_old_k3": 2e-4,
        "policy/clip_frac": 0.01,
        "optim/learning_rate": 5e-4,
        "throughput/rollout_tokens_per_s": 12345.6,
        "throughput/train_tokens_per_s": 6543.2,
    }
