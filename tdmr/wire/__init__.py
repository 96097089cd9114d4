"""What the service answers, as models: the server makes them, and the client reads them."""
