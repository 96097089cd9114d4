"""The HTTP API: thin routes that translate; services decide."""
