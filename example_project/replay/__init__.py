"""Plays recorded chat through the public WebSocket API with real clients and checks every delivery."""
