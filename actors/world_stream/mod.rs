//! World Streamer actors: control bus reader, runs supervisor, ready run, output stream.
