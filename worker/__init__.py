"""The worker: takes a job from the ledger, runs it in a process of its own, publishes its result.

It loads no torch: whatever trains is another process, and its memory goes back when it ends.
"""
