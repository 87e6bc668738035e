"""The storage stack: buckets and the key that encrypts them. Its own state: `make destroy` can leave it alone."""
