"""The HTML face: pages that the server renders and a module keeps up to date over the WebSocket."""
