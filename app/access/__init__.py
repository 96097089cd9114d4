"""Access: who may call, and what they may do."""
