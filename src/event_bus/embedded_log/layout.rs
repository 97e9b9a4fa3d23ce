//! Where the embedded log keeps its files below a run root (contract 1.4 and 8).

use wellspring_domain::run_paths::RunPaths;

/// Folder of all journals of a run.
pub fn journal_folder(run: &RunPaths) -> String {
    format!("{}/journal", run.ig())
}

/// Journal folder of one admission shard.
pub fn shard_folder(run: &RunPaths, shard: u16) -> String {
    format!("{}/shard-{shard:03}", journal_folder(run))
}

/// One journal segment. This path and a row number are a `receipt_ref` (contract 7.7).
pub fn segment_path(run: &RunPaths, shard: u16, segment: u32) -> String {
    format!(
        "{}/{}",
        shard_folder(run, shard),
        segment_file_name(segment)
    )
}

/// `segment-<nnnnnnnn>.wsj`.
pub fn segment_file_name(segment: u32) -> String {
    format!("segment-{segment:08}.wsj")
}

/// How far a shard's journal is known to be on the disk.
pub fn synced_mark_path(run: &RunPaths, shard: u16) -> String {
    format!("{}/synced.json", shard_folder(run, shard))
}

/// The lock that makes a gate the only writer of a run.
pub fn lock_path(run: &RunPaths) -> String {
    format!("{}/gate.lock", run.ig())
}

/// Folder of one topic.
pub fn topic_folder(run: &RunPaths, topic: &str) -> String {
    format!("{}/{topic}", run.eb())
}

/// Bus lines of one partition (contract 8).
pub fn partition_path(run: &RunPaths, topic: &str, partition: u32) -> String {
    format!("{}/partition={partition}.jsonl", topic_folder(run, topic))
}

/// The head of one partition: `head.json` for partition 0, the name every reader knows.
pub fn head_path(run: &RunPaths, topic: &str, partition: u32) -> String {
    let folder = topic_folder(run, topic);
    if partition == 0 {
        format!("{folder}/head.json")
    } else {
        format!("{folder}/head-{partition}.json")
    }
}

/// The description a topic gets when it is created.
pub fn topic_description_path(run: &RunPaths, topic: &str) -> String {
    format!("{}/_topic.json", topic_folder(run, topic))
}

/// The number in `segment-<nnnnnnnn>.wsj`.
pub fn parse_segment_name(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".wsj")?;
    (digits.len() >= 8).then(|| digits.parse().ok()).flatten()
}

/// The number in `shard-<kkk>`.
pub fn parse_shard_name(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("shard-")?;
    (digits.len() >= 3).then(|| digits.parse().ok()).flatten()
}

/// The number in `partition=<p>.jsonl`.
pub fn parse_partition_name(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("partition=")?.strip_suffix(".jsonl")?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_domain::admission::decision::RowRef;
    use wellspring_domain::admission::receipt::segment_receipt_ref;
    use wellspring_domain::run_paths::PlatformRunId;

    #[test]
    fn a_receipt_reference_names_the_segment_file() {
        let id = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        let run = RunPaths::new("runs", &id);
        let row = RowRef {
            shard: 2,
            segment: 17,
            row: 40_001,
        };
        let wanted = format!("{}#40001", segment_path(&run, 2, 17));
        assert_eq!(segment_receipt_ref(&run, row), wanted);
        assert_eq!(parse_segment_name("segment-00000017.wsj"), Some(17));
        assert_eq!(parse_segment_name("segment-17.wsj"), None);
        assert_eq!(parse_shard_name("shard-002"), Some(2));
    }

    #[test]
    fn partition_zero_keeps_the_names_other_readers_know() {
        let id = PlatformRunId::parse("platform_20260101T000000Z").unwrap();
        let run = RunPaths::new("r", &id);
        assert!(head_path(&run, "t", 0).ends_with("/eb/t/head.json"));
        assert!(head_path(&run, "t", 3).ends_with("/eb/t/head-3.json"));
        assert!(partition_path(&run, "t", 0).ends_with("/eb/t/partition=0.jsonl"));
        assert_eq!(parse_partition_name("partition=12.jsonl"), Some(12));
    }
}
