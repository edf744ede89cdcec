"""What commands print: bench, demo, doctor."""
