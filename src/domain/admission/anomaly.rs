//! What kind of anomaly a quarantine is (contract 7.11).

/// The category of a reason code.
pub fn anomaly_category(code: &str) -> &'static str {
    const BY_PREFIX: [(&str, &str); 10] = [
        ("REF_ACCESS_DENIED", "REF_ACCESS_DENIED"),
        ("PUBLISH_AMBIGUOUS", "PUBLISH_AMBIGUOUS"),
        ("IG_PUSH_RETRY_EXHAUSTED", "PUBLISH_AMBIGUOUS"),
        ("REPLAY_DIVERGENCE", "REPLAY_BASIS_MISMATCH"),
        ("DLA_INTAKE_REPLAY_DIVERGENCE", "REPLAY_BASIS_MISMATCH"),
        ("SCHEMA_", "SCHEMA_POLICY_MISSING"),
        ("PINS_MISSING", "SCHEMA_POLICY_MISSING"),
        ("FEATURE_GROUP_VERSION_MISMATCH", "INCOMPATIBILITY"),
        ("CAPABILITY_MISMATCH", "INCOMPATIBILITY"),
        ("ACTIVE_BUNDLE_INCOMPATIBLE", "INCOMPATIBILITY"),
    ];
    BY_PREFIX
        .iter()
        .find(|(prefix, _)| code.starts_with(prefix))
        .map_or("UNKNOWN", |(_, category)| category)
}

#[cfg(test)]
mod tests {
    use super::anomaly_category;

    #[test]
    fn categories_follow_the_prefix_of_the_code() {
        for (code, category) in [
            ("SCHEMA_FAIL", "SCHEMA_POLICY_MISSING"),
            ("PINS_MISSING", "SCHEMA_POLICY_MISSING"),
            ("PUBLISH_AMBIGUOUS", "PUBLISH_AMBIGUOUS"),
            ("PAYLOAD_HASH_MISMATCH", "UNKNOWN"),
            ("REF_ACCESS_DENIED", "REF_ACCESS_DENIED"),
            ("ACTIVE_BUNDLE_INCOMPATIBLE", "INCOMPATIBILITY"),
        ] {
            assert_eq!(anomaly_category(code), category);
        }
    }
}
