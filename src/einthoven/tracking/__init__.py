"""A run in TensorBoard and MLflow."""
