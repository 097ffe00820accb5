"""Training and distillation; the only package that imports optax."""
