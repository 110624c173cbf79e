"""The measures: exact and book's protocol, dynamic evaluation, neural cache."""
