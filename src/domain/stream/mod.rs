//! The World Streamer's rules: output plan, framing, pacing, cursor, retry.
