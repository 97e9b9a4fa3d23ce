//! Which outputs a run streams, in which order and in which role (contract 6.5, D6, D11).
//!
//! Lists are data. An id that is not in the catalogue, or that the catalogue does not offer for the
//! role, fails the whole selection: a silently shortened list would look like a complete run. Truth
//! outputs can never be selected.

use serde_json::Value;

/// The baseline traffic stream; when it is the only traffic, the baseline context list applies.
pub const BASELINE_STREAM: &str = "s2_event_stream_baseline_6B";

/// What part an output plays in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputRole {
    /// What the platform decides about.
    BusinessTraffic,
    /// What the decisions need to know.
    BehaviouralContext,
    /// Everything else; never streamed.
    Other,
}

impl OutputRole {
    /// The role's name in files and events.
    pub fn as_str(self) -> &'static str {
        match self {
            OutputRole::BusinessTraffic => "business_traffic",
            OutputRole::BehaviouralContext => "behavioural_context",
            OutputRole::Other => "other",
        }
    }

    /// The role the catalogue's `exposure` offers an output for.
    pub fn of_exposure(exposure: &str) -> Self {
        match exposure {
            "traffic" => OutputRole::BusinessTraffic,
            "context" => OutputRole::BehaviouralContext,
            _ => OutputRole::Other,
        }
    }
}

/// One place a list may come from: inline ids win over a reference to a list file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSource {
    /// Ids given directly.
    pub output_ids: Vec<String>,
    /// A YAML list file.
    pub output_ids_ref: Option<String>,
}

impl ListSource {
    /// From environment values: a comma-separated list and a reference; empty means unset.
    pub fn from_env(csv: Option<&str>, reference: Option<&str>) -> Self {
        let output_ids = csv.unwrap_or_default().split(',').map(str::trim);
        let reference = reference.map(str::trim).filter(|text| !text.is_empty());
        Self {
            output_ids: output_ids
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect(),
            output_ids_ref: reference.map(str::to_owned),
        }
    }

    fn is_unset(&self) -> bool {
        self.output_ids.is_empty() && self.output_ids_ref.is_none()
    }
}

/// Where the lists of a run come from (contract 6.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectionSources {
    /// `WSP_TRAFFIC_OUTPUT_IDS`, `WSP_TRAFFIC_OUTPUT_IDS_REF`.
    pub traffic_env: ListSource,
    /// Policy `traffic_output_ids`, `traffic_output_ids_ref`.
    pub traffic_policy: ListSource,
    /// `WSP_CONTEXT_OUTPUT_IDS`, `WSP_CONTEXT_OUTPUT_IDS_REF`.
    pub context_env: ListSource,
    /// Policy `context_output_ids`, `context_output_ids_ref`.
    pub context_policy: ListSource,
    /// Policy `context_output_ids_baseline_ref`.
    pub context_baseline_ref: Option<String>,
    /// Outputs an operator asked for on the command line; must be a subset of the selection.
    pub only: Vec<String>,
}

/// Why no outputs were selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The traffic list is empty, unreadable or holds what is not traffic.
    #[error("no traffic outputs to stream: {detail}")]
    NoTraffic {
        /// What is wrong with the list.
        detail: String,
    },
    /// The context list is unreadable or holds what is not context (D11).
    #[error("context outputs cannot be used: {detail}")]
    ContextUnknown {
        /// What is wrong with the list.
        detail: String,
    },
}

impl SelectionError {
    /// The contract's reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoTraffic { .. } => "NO_TRAFFIC_OUTPUTS",
            Self::ContextUnknown { .. } => "CONTEXT_OUTPUT_UNKNOWN",
        }
    }
}

/// What a run streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPlan {
    /// Traffic output ids.
    pub traffic: Vec<String>,
    /// Context output ids.
    pub context: Vec<String>,
    /// Things an operator should know about the selection.
    pub warnings: Vec<String>,
}

impl OutputPlan {
    /// All outputs in streaming order: context first, then traffic, each once.
    pub fn output_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for id in self.context.iter().chain(&self.traffic) {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids
    }

    /// The role of an output in this plan.
    pub fn role(&self, output_id: &str) -> OutputRole {
        let holds = |ids: &[String]| ids.iter().any(|id| id == output_id);
        match (holds(&self.traffic), holds(&self.context)) {
            (true, _) => OutputRole::BusinessTraffic,
            (false, true) => OutputRole::BehaviouralContext,
            (false, false) => OutputRole::Other,
        }
    }
}

/// What the selection asks of its surroundings.
pub trait SelectionInputs {
    /// The role the catalogue offers an output for; `None` when it does not know the output.
    fn offered_role(&self, output_id: &str) -> Option<OutputRole>;
    /// The parsed list file behind a reference, or why it cannot be read.
    fn list_file(&self, reference: &str) -> Result<Value, String>;
}

/// Selects the outputs of a run (contract 6.5), failing closed.
pub fn plan_outputs(
    sources: &SelectionSources,
    inputs: &dyn SelectionInputs,
) -> Result<OutputPlan, SelectionError> {
    let mut warnings = Vec::new();
    let no_traffic = |detail: String| SelectionError::NoTraffic { detail };
    let traffic_source = first_set(&sources.traffic_env, &sources.traffic_policy);
    let traffic = read_list(traffic_source, inputs).map_err(no_traffic)?;
    if traffic.is_empty() {
        return Err(no_traffic("the list is empty".to_owned()));
    }
    check_roles(&traffic, OutputRole::BusinessTraffic, inputs).map_err(no_traffic)?;

    let no_context = |detail: String| SelectionError::ContextUnknown { detail };
    let context_source = context_source(sources, &traffic, &mut warnings);
    let context = read_list(&context_source, inputs).map_err(no_context)?;
    check_roles(&context, OutputRole::BehaviouralContext, inputs).map_err(no_context)?;
    restrict(
        OutputPlan {
            traffic,
            context,
            warnings,
        },
        &sources.only,
    )
}

fn first_set<'a>(env: &'a ListSource, policy: &'a ListSource) -> &'a ListSource {
    if env.is_unset() { policy } else { env }
}

fn context_source(
    sources: &SelectionSources,
    traffic: &[String],
    warnings: &mut Vec<String>,
) -> ListSource {
    let chosen = first_set(&sources.context_env, &sources.context_policy);
    let from_policy = sources.context_env.is_unset() && chosen.output_ids.is_empty();
    let baseline = traffic.iter().any(|id| id == BASELINE_STREAM);
    if baseline && traffic.len() > 1 {
        warnings.push("baseline and fraud traffic are both selected: fraud context is used".into());
    }
    match &sources.context_baseline_ref {
        Some(reference) if from_policy && baseline && traffic.len() == 1 => ListSource {
            output_ids: Vec::new(),
            output_ids_ref: Some(reference.clone()),
        },
        _ => chosen.clone(),
    }
}

/// The ids of a source, each once, in the order given.
fn read_list(source: &ListSource, inputs: &dyn SelectionInputs) -> Result<Vec<String>, String> {
    let ids = match (&source.output_ids, &source.output_ids_ref) {
        (ids, _) if !ids.is_empty() => ids.clone(),
        (_, Some(reference)) => {
            let file = inputs
                .list_file(reference)
                .map_err(|why| format!("{reference}: {why}"))?;
            parse_list(&file).map_err(|why| format!("{reference}: {why}"))?
        }
        _ => Vec::new(),
    };
    let mut unique: Vec<String> = Vec::new();
    for id in ids {
        if !unique.contains(&id) {
            unique.push(id);
        }
    }
    Ok(unique)
}

/// `{version, output_ids: […]}` or a bare list of ids.
pub fn parse_list(file: &Value) -> Result<Vec<String>, String> {
    let list = file.get("output_ids").unwrap_or(file);
    let items = list.as_array().ok_or("it holds no list of output ids")?;
    let id = |item: &Value| match item.as_str().map(str::trim) {
        Some(id) if !id.is_empty() => Ok(id.to_owned()),
        _ => Err(format!("{item} is not an output id")),
    };
    items.iter().map(id).collect()
}

fn check_roles(
    ids: &[String],
    wanted: OutputRole,
    inputs: &dyn SelectionInputs,
) -> Result<(), String> {
    for id in ids {
        let offered = inputs
            .offered_role(id)
            .ok_or_else(|| format!("{id} is not in the catalogue"))?;
        if offered != wanted {
            let (offered, wanted) = (offered.as_str(), wanted.as_str());
            return Err(format!("{id} is offered as {offered}, not as {wanted}"));
        }
    }
    Ok(())
}

/// Keeps the outputs an operator asked for; asking for more than the policy selects is refused.
fn restrict(mut plan: OutputPlan, only: &[String]) -> Result<OutputPlan, SelectionError> {
    if only.is_empty() {
        return Ok(plan);
    }
    if let Some(id) = only.iter().find(|id| plan.role(id) == OutputRole::Other) {
        let detail = format!("{id} was asked for and the policy does not select it");
        return Err(SelectionError::NoTraffic { detail });
    }
    plan.traffic.retain(|id| only.contains(id));
    plan.context.retain(|id| only.contains(id));
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fixture;

    impl SelectionInputs for Fixture {
        fn offered_role(&self, output_id: &str) -> Option<OutputRole> {
            let exposure = match output_id {
                "fraud" | BASELINE_STREAM | "new_stream" => "traffic",
                "arrivals" | "anchor" | "base_anchor" => "context",
                "sessions" => "context_batch",
                "labels" => "truth",
                _ => return None,
            };
            Some(OutputRole::of_exposure(exposure))
        }

        fn list_file(&self, reference: &str) -> Result<Value, String> {
            match reference {
                "traffic.yaml" => Ok(json!({"version": "v0", "output_ids": ["fraud"]})),
                "context.yaml" => Ok(json!(["arrivals", "anchor", "arrivals"])),
                "baseline.yaml" => Ok(json!({"output_ids": ["arrivals", "base_anchor"]})),
                "broken.yaml" => Ok(json!({"output_ids": [1]})),
                _ => Err("no such file".to_owned()),
            }
        }
    }

    fn reference(name: &str) -> ListSource {
        ListSource::from_env(None, Some(name))
    }

    fn ids(csv: &str) -> ListSource {
        ListSource::from_env(Some(csv), None)
    }

    fn policy() -> SelectionSources {
        SelectionSources {
            traffic_policy: reference("traffic.yaml"),
            context_policy: reference("context.yaml"),
            context_baseline_ref: Some("baseline.yaml".to_owned()),
            ..SelectionSources::default()
        }
    }

    #[test]
    fn context_comes_first_and_every_output_once() {
        let plan = plan_outputs(&policy(), &Fixture).unwrap();
        assert_eq!(plan.output_ids(), ["arrivals", "anchor", "fraud"]);
        assert_eq!(plan.role("fraud"), OutputRole::BusinessTraffic);
        assert_eq!(plan.role("anchor"), OutputRole::BehaviouralContext);
        assert_eq!(plan.role("labels"), OutputRole::Other);
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn the_environment_wins_over_the_policy_and_ids_over_a_reference() {
        let mut sources = policy();
        sources.traffic_env = ListSource::from_env(Some(" new_stream ,"), Some("traffic.yaml"));
        sources.context_env = ids("anchor");
        let plan = plan_outputs(&sources, &Fixture).unwrap();
        assert_eq!(plan.output_ids(), ["anchor", "new_stream"]);
    }

    #[test]
    fn only_the_baseline_stream_takes_the_baseline_context() {
        let mut sources = policy();
        sources.traffic_env = ids(BASELINE_STREAM);
        let plan = plan_outputs(&sources, &Fixture).unwrap();
        assert_eq!(
            plan.output_ids(),
            ["arrivals", "base_anchor", BASELINE_STREAM]
        );

        sources.traffic_env = ids(&format!("{BASELINE_STREAM},fraud"));
        let plan = plan_outputs(&sources, &Fixture).unwrap();
        assert_eq!(plan.context, ["arrivals", "anchor"]);
        assert_eq!(plan.warnings.len(), 1);
    }

    #[test]
    fn the_selection_fails_closed_with_the_code_of_the_list_at_fault() {
        let traffic = ["nowhere", "arrivals", "labels", "sessions", "fraud,labels"];
        for csv in traffic {
            let sources = SelectionSources {
                traffic_env: ids(csv),
                ..policy()
            };
            let error = plan_outputs(&sources, &Fixture).unwrap_err();
            assert_eq!(error.code(), "NO_TRAFFIC_OUTPUTS", "{csv}: {error}");
        }
        for csv in ["nowhere", "fraud", "labels", "sessions", "arrivals,nowhere"] {
            let sources = SelectionSources {
                context_env: ids(csv),
                ..policy()
            };
            let error = plan_outputs(&sources, &Fixture).unwrap_err();
            assert_eq!(error.code(), "CONTEXT_OUTPUT_UNKNOWN", "{csv}: {error}");
        }
    }

    #[test]
    fn an_unreadable_or_empty_list_is_not_an_empty_selection() {
        for name in ["gone.yaml", "broken.yaml"] {
            let sources = SelectionSources {
                traffic_env: reference(name),
                ..policy()
            };
            assert_eq!(
                plan_outputs(&sources, &Fixture).unwrap_err().code(),
                "NO_TRAFFIC_OUTPUTS"
            );
            let sources = SelectionSources {
                context_env: reference(name),
                ..policy()
            };
            let error = plan_outputs(&sources, &Fixture).unwrap_err();
            assert_eq!(error.code(), "CONTEXT_OUTPUT_UNKNOWN");
        }
        let error = plan_outputs(&SelectionSources::default(), &Fixture).unwrap_err();
        assert_eq!(error.code(), "NO_TRAFFIC_OUTPUTS");
    }

    #[test]
    fn an_operator_may_ask_for_less_but_not_for_more() {
        let mut sources = policy();
        sources.only = vec!["fraud".to_owned(), "anchor".to_owned()];
        let plan = plan_outputs(&sources, &Fixture).unwrap();
        assert_eq!(plan.output_ids(), ["anchor", "fraud"]);
        sources.only.push("new_stream".to_owned());
        assert_eq!(
            plan_outputs(&sources, &Fixture).unwrap_err().code(),
            "NO_TRAFFIC_OUTPUTS"
        );
    }
}
