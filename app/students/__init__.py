"""Students: finished models, their files and how good they are."""
