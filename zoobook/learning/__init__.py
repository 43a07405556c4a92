"""What training, fine-tuning and prediction have in common in both frameworks."""
