"""What the command line (and later the API and the dashboard) can do: one function per action."""
