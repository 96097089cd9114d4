"""Deployment files: held to their schemas, and carried out."""
