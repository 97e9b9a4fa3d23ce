-- Tables of the managed substrate. Columns without the prefix ws_ are those other programs read and
-- write; ws_ columns and tables are our own.

-- ---------------------------------------------------------------------------------------------
-- Admission
-- ---------------------------------------------------------------------------------------------

-- One generation of one admission shard of one run on one node. The number is a fencing token.
CREATE TABLE ws_writers (
    writer BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node TEXT NOT NULL,
    platform_run_id TEXT COLLATE "C" NOT NULL,
    shard INTEGER NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    opened_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    fenced BOOLEAN NOT NULL DEFAULT FALSE,
    closed BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX ix_ws_writers_open ON ws_writers (platform_run_id) WHERE NOT closed;

-- Segment numbers are handed out in blocks, so (shard, segment, row) is unique across nodes.
CREATE TABLE ws_segment_blocks (
    platform_run_id TEXT COLLATE "C" NOT NULL,
    shard INTEGER NOT NULL,
    next_segment BIGINT NOT NULL,
    PRIMARY KEY (platform_run_id, shard)
);

-- What many decisions share. A context is text, not JSONB: it may hold characters JSONB cannot.
CREATE TABLE ws_contexts (
    context_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    policy_id TEXT NOT NULL,
    policy_revision TEXT NOT NULL,
    policy_digest TEXT NOT NULL,
    pins_json TEXT NOT NULL,
    context TEXT NOT NULL
);

-- One flush of one writer: one receipt segment.
CREATE TABLE ws_flushes (
    platform_run_id TEXT COLLATE "C" NOT NULL,
    shard INTEGER NOT NULL,
    segment BIGINT NOT NULL,
    writer BIGINT NOT NULL,
    rows INTEGER NOT NULL,
    positions JSONB NOT NULL,
    decided_at_utc TEXT NOT NULL,
    segment_ref TEXT NOT NULL,
    quarantine_root TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('CLAIMED', 'MARKED', 'STORED', 'RELEASED')),
    changed_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (platform_run_id, shard, segment)
);
CREATE INDEX ix_ws_flushes_claimed ON ws_flushes (writer) WHERE state = 'CLAIMED';
CREATE INDEX ix_ws_flushes_unstored ON ws_flushes (platform_run_id, shard, segment)
    WHERE state = 'MARKED';

-- A row is written twice: claimed, then admitted. No index holds a column the second write changes,
-- and pages are left with room for it, so that it stays on its page and touches no index.
CREATE TABLE admissions (
    dedupe_key TEXT COLLATE "C" PRIMARY KEY,
    state TEXT,
    platform_run_id TEXT COLLATE "C",
    event_class TEXT,
    event_id TEXT,
    payload_hash TEXT,
    receipt_ref TEXT,
    receipt_write_failed INTEGER,
    admitted_at_utc TEXT,
    eb_topic TEXT,
    eb_partition INTEGER,
    eb_offset TEXT,
    eb_offset_kind TEXT,
    eb_published_at_utc TEXT,
    ws_writer BIGINT NOT NULL DEFAULT 0,
    ws_segment BIGINT,
    ws_context BIGINT,
    ws_shard INTEGER,
    ws_row INTEGER,
    ws_ts_utc TEXT,
    ws_partition_key TEXT,
    ws_texts TEXT,
    ws_receipt_id TEXT COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 40, autovacuum_vacuum_insert_scale_factor = 0.5);
-- Rows of one flush share their key, which the index stores once.
CREATE INDEX ix_ws_admissions_segment ON admissions (platform_run_id, ws_shard, ws_segment);
CREATE INDEX ix_ws_admissions_receipt_id ON admissions USING hash (ws_receipt_id);

-- Decisions that publish nothing.
CREATE TABLE ws_decisions (
    platform_run_id TEXT COLLATE "C" NOT NULL,
    shard INTEGER NOT NULL,
    segment BIGINT NOT NULL,
    "row" INTEGER NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('DUPLICATE', 'QUARANTINE')),
    receipt_id TEXT COLLATE "C" NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    dedupe_key TEXT COLLATE "C" NOT NULL,
    payload_hash TEXT NOT NULL,
    ts_utc TEXT NOT NULL,
    context BIGINT NOT NULL,
    original_shard INTEGER,
    original_segment BIGINT,
    original_row INTEGER,
    reason_code TEXT NOT NULL,
    quarantine_record TEXT,
    decided_at_utc TEXT NOT NULL,
    texts TEXT,
    PRIMARY KEY (platform_run_id, shard, segment, "row")
);
CREATE INDEX ix_ws_decisions_receipt_id ON ws_decisions (receipt_id);
CREATE INDEX ix_ws_decisions_dedupe_key ON ws_decisions (dedupe_key);

-- The last sequence number of each stream shard that a decision is known to have.
CREATE TABLE ws_stream_positions (
    stream TEXT NOT NULL,
    shard_id TEXT NOT NULL,
    sequence TEXT NOT NULL,
    PRIMARY KEY (stream, shard_id)
) WITH (fillfactor = 50);

-- ---------------------------------------------------------------------------------------------
-- Leases, nodes, control bus
-- ---------------------------------------------------------------------------------------------

CREATE TABLE ws_leases (
    lease_key TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    token TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE ws_nodes (
    node TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    url TEXT,
    started_at TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL,
    build TEXT NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE ws_control_positions (
    stream TEXT NOT NULL,
    shard_id TEXT NOT NULL,
    sequence TEXT NOT NULL,
    PRIMARY KEY (stream, shard_id)
);
CREATE TABLE ws_control_settled (
    stream TEXT NOT NULL,
    shard_id TEXT NOT NULL,
    sequence TEXT NOT NULL,
    PRIMARY KEY (stream, shard_id, sequence)
);

-- ---------------------------------------------------------------------------------------------
-- Scenario Runner and World Streamer
-- ---------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS sr_run_equivalence (
    run_equivalence_key TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    intent_fingerprint TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sr_run_leases (
    run_id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL,
    lease_token TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
ALTER TABLE sr_run_leases ADD COLUMN IF NOT EXISTS fencing_token BIGINT NOT NULL DEFAULT 0;

CREATE TABLE IF NOT EXISTS wsp_checkpoint (
    pack_key TEXT NOT NULL,
    output_id TEXT NOT NULL,
    last_file TEXT NOT NULL,
    last_row_index INTEGER NOT NULL,
    last_ts_utc TEXT NULL,
    updated_at_utc TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (pack_key, output_id)
);
ALTER TABLE wsp_checkpoint
    ADD COLUMN IF NOT EXISTS ws_stream_view_id TEXT,
    ADD COLUMN IF NOT EXISTS ws_part_name TEXT,
    ADD COLUMN IF NOT EXISTS ws_lease_epoch BIGINT;

-- ---------------------------------------------------------------------------------------------
-- What other programs read about decisions
-- ---------------------------------------------------------------------------------------------

CREATE VIEW receipts AS
SELECT a.ws_receipt_id AS receipt_id, a.platform_run_id, a.event_id, c.event_type, a.dedupe_key, 'ADMIT'::text AS decision,
       a.eb_topic, a.eb_partition, a.eb_offset, a.eb_offset_kind,
       c.policy_id, c.policy_revision, c.policy_digest, a.admitted_at_utc AS created_at_utc,
       a.receipt_ref, c.pins_json, '[]'::text AS reason_codes_json, '[]'::text AS evidence_refs_json
FROM admissions a JOIN ws_contexts c ON c.context_id = a.ws_context
WHERE a.state = 'ADMITTED'
UNION ALL
SELECT d.receipt_id, d.platform_run_id, d.event_id, d.event_type, d.dedupe_key, d.decision,
       a.eb_topic, a.eb_partition, a.eb_offset, a.eb_offset_kind,
       c.policy_id, c.policy_revision, c.policy_digest, d.decided_at_utc,
       f.segment_ref || '#' || d."row", c.pins_json, '["' || d.reason_code || '"]',
       CASE d.decision
           WHEN 'DUPLICATE' THEN
               '[{"kind":"receipt_ref","ref":' || to_json(coalesce(a.receipt_ref, ''))::text || '}]'
           ELSE '[{"kind":"quarantine_record","ref":'
               || to_json(f.quarantine_root || '/' || d.receipt_id || '.json')::text || '}]'
       END
FROM ws_decisions d
JOIN ws_contexts c ON c.context_id = d.context
JOIN ws_flushes f USING (platform_run_id, shard, segment)
LEFT JOIN admissions a ON d.decision = 'DUPLICATE' AND a.dedupe_key = d.dedupe_key;

CREATE VIEW quarantines AS
SELECT d.receipt_id AS quarantine_id, d.event_id, d.decision,
       '["' || d.reason_code || '"]' AS reason_codes_json,
       c.policy_id, c.policy_revision, c.policy_digest, d.decided_at_utc AS created_at_utc,
       f.quarantine_root || '/' || d.receipt_id || '.json' AS evidence_ref, c.pins_json
FROM ws_decisions d
JOIN ws_contexts c ON c.context_id = d.context
JOIN ws_flushes f USING (platform_run_id, shard, segment)
WHERE d.decision = 'QUARANTINE';
