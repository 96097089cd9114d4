"""The database's schema, revision by revision; `app.migrate` runs them."""
