"""Where bytes come from: local files, the Hub, and byte ranges of both, seen the same way."""
