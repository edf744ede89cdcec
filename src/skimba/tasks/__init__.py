"""What a model is asked: predictions, how good they are, tables of them."""
