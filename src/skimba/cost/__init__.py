"""What a model costs: multiply-adds and measured time."""
