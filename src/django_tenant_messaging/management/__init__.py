"""What stands behind the management commands."""
