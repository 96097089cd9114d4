"""What an order would find, cost and bring: checks, estimates, and sweeps of many students."""
