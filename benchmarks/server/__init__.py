"""What the server costs: `make bench-server`."""
