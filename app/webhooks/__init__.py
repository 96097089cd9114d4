"""Webhooks: what happened is told to the addresses that its owner has named."""
