"""The dashboard: pages for people, on the same API as everybody else's programs.

`attach` puts it before a server. One process has one, as its framework is made.
"""
