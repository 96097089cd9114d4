"""What hostile and good uploads do to the intake: each checked in a process of its own."""
