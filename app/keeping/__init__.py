"""What has been kept for long enough goes: workers do it between their jobs."""
