//! Ingestion Gate actors: gate supervisor, admission shards, index shards, projectors.
