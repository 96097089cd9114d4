"""How far one server and one database reach: `make bench-scale`."""
