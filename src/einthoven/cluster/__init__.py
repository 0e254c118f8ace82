"""Work spread over the machines of a Ray cluster, and chunks kept in shared or object storage."""
