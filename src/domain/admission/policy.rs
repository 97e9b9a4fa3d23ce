//! The gate's policy, compiled from its three files: class map, partitioning profiles and schema policy
//! (contract 7.5, 7.6). A new event type enters by configuration alone.

use crate::admission::decision::PolicyRev;
use crate::admission::decision_loop_guard;
use crate::admission::envelope::Field;
use crate::admission::payload_schema::{PayloadSchema, SchemaCompileError};
use crate::canonical_json::{CanonicalError, to_cj};
use crate::ids::hash_cj;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Class of an event type nobody mapped (contract 7.5).
pub const FALLBACK_CLASS: &str = "traffic";

/// Why the policy files do not make a policy. Start-up stops with the code.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file does not have the shape of contract 7.5 or 7.6.
    #[error("{path}: {cause}")]
    Malformed {
        /// File as named in the profile.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// A payload schema uses something that is not understood.
    #[error("{path}: {source}")]
    Schema {
        /// Schema file.
        path: String,
        /// Where in the schema.
        source: SchemaCompileError,
    },
    /// The event types of the decision loop are only half configured (contract 7.6, start-up guard).
    #[error("IG_RTLD_POLICY_ALIGNMENT_FAILED:{0}")]
    DecisionLoopAlignment(String),
    /// A value cannot be hashed.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl PolicyError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            PolicyError::DecisionLoopAlignment(_) => "IG_RTLD_POLICY_ALIGNMENT_FAILED",
            PolicyError::Schema { .. } => "IG_PAYLOAD_SCHEMA_INVALID",
            _ => "IG_POLICY_INVALID",
        }
    }
}

/// The parsed policy files, each with its path exactly as written in the profile (it is hashed, V20).
#[derive(Debug, Clone)]
pub struct PolicyFiles {
    /// Revision from the profile (`policy.policy_rev`).
    pub revision: String,
    /// Class map path and content.
    pub class_map: (String, Value),
    /// Partitioning profiles path and content.
    pub partitioning: (String, Value),
    /// Schema policy path and content.
    pub schema_policy: (String, Value),
    /// Payload schemas by the reference the schema policy names them with.
    pub payload_schemas: BTreeMap<String, Value>,
    /// Profile for classes without one of their own (`policy.partitioning_profile_id`).
    pub default_profile_id: String,
    /// Gates an event type's output needs before it may be read (`read_requires_gates` of the catalogue).
    pub required_gates: BTreeMap<String, Vec<String>>,
}

/// Where a partition key may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A string or number field of the envelope.
    Envelope(Field),
    /// A path into the payload, through objects only.
    Payload(Vec<String>),
}

/// The schema policy of one event type.
#[derive(Debug)]
pub struct SchemaRule {
    /// `schema_version` must be there.
    pub version_required: bool,
    /// Versions accepted; empty accepts any.
    pub versions: Vec<String>,
    /// Payload schema, when the policy names one.
    pub payload: Option<PayloadSchema>,
}

/// Everything the gate does with one event type.
#[derive(Debug)]
pub struct EventRule {
    /// Event class (contract 7.5).
    pub class: String,
    /// Pins that must be there at the top level.
    pub pins: Vec<Field>,
    /// Schema policy; `None` means `SCHEMA_POLICY_MISSING`.
    pub schema: Option<SchemaRule>,
    /// Partitioning profile.
    pub profile_id: String,
    /// Bus topic.
    pub topic: Arc<str>,
    /// Position of the topic among all topics, sorted: part of the shard choice.
    pub topic_index: u16,
    /// Where the partition key comes from, first match wins.
    pub key_precedence: Vec<KeySource>,
    /// The profile's `hash_algo`; only `sha256` is supported.
    pub hash_algo: String,
    /// Gates that must be proven before admission (D5); empty for events that are no engine output.
    pub required_gates: Vec<String>,
}

/// The compiled policy.
#[derive(Debug)]
pub struct AdmissionPolicy {
    /// Revision and digest, stamped on every receipt.
    pub policy_rev: PolicyRev,
    rules: HashMap<String, Arc<EventRule>>,
    fallback: Arc<EventRule>,
    topics: Vec<Arc<str>>,
}

#[derive(Deserialize)]
pub(super) struct ClassMap {
    pub(super) classes: BTreeMap<String, ClassEntry>,
    pub(super) event_types: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassEntry {
    #[serde(default)]
    pub(super) required_pins: Vec<String>,
    /// Lets a class that is not in the contract's table choose its profile.
    partitioning_profile_id: Option<String>,
}

#[derive(Deserialize)]
struct Profiles {
    profiles: BTreeMap<String, ProfileEntry>,
}

#[derive(Deserialize)]
struct ProfileEntry {
    stream: String,
    key_precedence: Vec<String>,
    #[serde(default = "sha256")]
    hash_algo: String,
}

fn sha256() -> String {
    "sha256".to_owned()
}

#[derive(Deserialize)]
pub(super) struct SchemaPolicy {
    pub(super) policies: Vec<SchemaEntry>,
}

#[derive(Deserialize)]
pub(super) struct SchemaEntry {
    pub(super) event_type: String,
    #[serde(default)]
    pub(super) class: Option<String>,
    #[serde(default)]
    pub(super) schema_version_required: bool,
    #[serde(default)]
    pub(super) allowed_schema_versions: Vec<String>,
    #[serde(default)]
    payload_schema_ref: Option<String>,
}

impl AdmissionPolicy {
    /// Compiles the files. Every mistake in them is found here, before the first event.
    pub fn compile(files: &PolicyFiles) -> Result<AdmissionPolicy, PolicyError> {
        let classes: ClassMap = parse(&files.class_map)?;
        let profiles: Profiles = parse(&files.partitioning)?;
        let schemas: SchemaPolicy = parse(&files.schema_policy)?;
        decision_loop_guard::check(&classes, &schemas)?;
        let topics = all_topics(&profiles);
        let compiler = RuleCompiler {
            files,
            classes: &classes,
            profiles: &profiles,
            topics: &topics,
        };
        let mut rules = HashMap::new();
        let entries: BTreeMap<&str, &SchemaEntry> = schemas
            .policies
            .iter()
            .map(|entry| (entry.event_type.as_str(), entry))
            .collect();
        for (event_type, class) in &classes.event_types {
            let rule =
                compiler.rule(event_type, class, entries.get(event_type.as_str()).copied())?;
            rules.insert(event_type.clone(), Arc::new(rule));
        }
        let fallback = Arc::new(compiler.rule("", FALLBACK_CLASS, None)?);
        Ok(AdmissionPolicy {
            policy_rev: policy_rev(files)?,
            rules,
            fallback,
            topics,
        })
    }

    /// The rule of an event type; unknown types get class `traffic` without a schema policy.
    pub fn rule(&self, event_type: &str) -> &Arc<EventRule> {
        self.rules.get(event_type).unwrap_or(&self.fallback)
    }

    /// All topics the policy can route to, sorted.
    pub fn topics(&self) -> &[Arc<str>] {
        &self.topics
    }

    /// All classes the policy can give an event, sorted and unique.
    pub fn classes(&self) -> Vec<&str> {
        let mut classes: Vec<&str> = self
            .rules
            .values()
            .map(|rule| rule.class.as_str())
            .collect();
        classes.push(&self.fallback.class);
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

fn parse<T: serde::de::DeserializeOwned>(file: &(String, Value)) -> Result<T, PolicyError> {
    serde_json::from_value(file.1.clone()).map_err(|error| PolicyError::Malformed {
        path: file.0.clone(),
        cause: error.to_string(),
    })
}

fn all_topics(profiles: &Profiles) -> Vec<Arc<str>> {
    let mut topics: Vec<&str> = profiles
        .profiles
        .values()
        .map(|profile| profile.stream.as_str())
        .collect();
    topics.sort_unstable();
    topics.dedup();
    topics.into_iter().map(Arc::from).collect()
}

/// `H(CJ([{path, content}…]))` over the three files sorted by path; `content` is CJ text (V20).
fn policy_rev(files: &PolicyFiles) -> Result<PolicyRev, PolicyError> {
    let mut parts = [&files.class_map, &files.partitioning, &files.schema_policy];
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut documents = Vec::new();
    for (path, content) in parts {
        documents.push(json!({"path": path, "content": to_cj(content)?}));
    }
    Ok(PolicyRev {
        policy_id: "ig_policy".to_owned(),
        revision: files.revision.clone(),
        content_digest: hash_cj(&documents)?,
    })
}

struct RuleCompiler<'a> {
    files: &'a PolicyFiles,
    classes: &'a ClassMap,
    profiles: &'a Profiles,
    topics: &'a [Arc<str>],
}

impl RuleCompiler<'_> {
    fn rule(
        &self,
        event_type: &str,
        class: &str,
        schema: Option<&SchemaEntry>,
    ) -> Result<EventRule, PolicyError> {
        let entry = self.classes.classes.get(class);
        let Some(entry) = entry else {
            return self.malformed(
                &self.files.class_map.0,
                format!("class {class} of event type {event_type:?} is not defined"),
            );
        };
        let mut pins = Vec::new();
        for pin in &entry.required_pins {
            match Field::from_name(pin.as_bytes()) {
                Some(field) if field != Field::Payload => pins.push(field),
                _ => {
                    return self.malformed(
                        &self.files.class_map.0,
                        format!("class {class} requires {pin}, which is no envelope field"),
                    );
                }
            }
        }
        let profile_id = self.profile_id(class, entry);
        let Some(profile) = self.profiles.profiles.get(&profile_id) else {
            return self.malformed(
                &self.files.partitioning.0,
                format!("profile {profile_id} of class {class} is not defined"),
            );
        };
        let topic_index = self
            .topics
            .iter()
            .position(|topic| **topic == *profile.stream)
            .unwrap_or_default();
        Ok(EventRule {
            class: class.to_owned(),
            pins,
            schema: schema.map(|entry| self.schema(entry)).transpose()?,
            topic: self.topics[topic_index].clone(),
            topic_index: topic_index as u16,
            key_precedence: profile
                .key_precedence
                .iter()
                .map(|path| self.key_source(path))
                .collect::<Result<_, _>>()?,
            hash_algo: profile.hash_algo.clone(),
            required_gates: self
                .files
                .required_gates
                .get(event_type)
                .cloned()
                .unwrap_or_default(),
            profile_id,
        })
    }

    /// The contract's fixed mapping, else the class's own choice, else the wiring default.
    fn profile_id(&self, class: &str, entry: &ClassEntry) -> String {
        let fixed = match class {
            "traffic_baseline" => "traffic.baseline",
            "traffic_fraud" => "traffic.fraud",
            "context_arrival" => "context.arrival_events",
            "context_arrival_entities" => "context.arrival_entities",
            "context_flow_baseline" => "context.flow_anchor.baseline",
            "context_flow_fraud" => "context.flow_anchor.fraud",
            "rtdl_decision" => "rtdl.decision",
            "rtdl_action_intent" => "rtdl.action_intent",
            "rtdl_action_outcome" => "rtdl.action_outcome",
            "case_trigger" => "case.trigger",
            "audit" => "audit",
            "control" => "control",
            _ => {
                return entry
                    .partitioning_profile_id
                    .clone()
                    .unwrap_or_else(|| self.files.default_profile_id.clone());
            }
        };
        format!("ig.partitioning.v0.{fixed}")
    }

    fn schema(&self, entry: &SchemaEntry) -> Result<SchemaRule, PolicyError> {
        let payload = match &entry.payload_schema_ref {
            None => None,
            Some(reference) => {
                let Some(document) = self.files.payload_schemas.get(reference) else {
                    return self.malformed(
                        &self.files.schema_policy.0,
                        format!("payload schema {reference} was not found"),
                    );
                };
                let schema = PayloadSchema::compile(document);
                Some(schema.map_err(|source| PolicyError::Schema {
                    path: reference.clone(),
                    source,
                })?)
            }
        };
        Ok(SchemaRule {
            version_required: entry.schema_version_required,
            versions: entry.allowed_schema_versions.clone(),
            payload,
        })
    }

    fn key_source(&self, path: &str) -> Result<KeySource, PolicyError> {
        if let Some(inside) = path.strip_prefix("payload.") {
            return Ok(KeySource::Payload(
                inside.split('.').map(str::to_owned).collect(),
            ));
        }
        match Field::from_name(path.as_bytes()) {
            Some(field) if field != Field::Payload => Ok(KeySource::Envelope(field)),
            _ => self.malformed(
                &self.files.partitioning.0,
                format!("key {path} is neither payload.… nor an envelope field"),
            ),
        }
    }

    fn malformed<T>(&self, path: &str, cause: String) -> Result<T, PolicyError> {
        Err(PolicyError::Malformed {
            path: path.to_owned(),
            cause,
        })
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
pub(crate) mod tests;
