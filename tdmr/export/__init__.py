"""A student in the formats that other runtimes take: written, verified, measured, or refused."""
