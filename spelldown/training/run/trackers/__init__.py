"""Other programs that keep what a run tells: TensorBoard, Weights & Biases, MLflow."""
