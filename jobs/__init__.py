"""What runs on Ray: corpus preparation, training, tuning, evaluation, serving."""
