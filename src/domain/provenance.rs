//! The provenance block that receipts, facts views, READY and governance facts carry (contract 1.5).

use serde::{Deserialize, Serialize};

/// Which release, environment and configuration produced a document. Empty values are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The release of the service.
    pub service_release_id: String,
    /// The environment, normally the profile id.
    pub environment: String,
    /// The revision of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_revision: Option<String>,
    /// The policy digest of the component that stamps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_config_digest: Option<String>,
}

/// What the caller knows explicitly; the environment fills the rest.
#[derive(Clone, Debug, Default)]
pub struct ProvenanceRequest {
    /// The component, for example `SCENARIO_RUNNER`; any spelling is normalised.
    pub component: String,
    /// An explicit release id.
    pub service_release_id: Option<String>,
    /// An explicit environment (profile id).
    pub environment: Option<String>,
    /// An explicit configuration revision.
    pub config_revision: Option<String>,
    /// The policy digest to stamp.
    pub run_config_digest: Option<String>,
}

/// Resolves a provenance block; `lookup` reads one environment variable (contract 1.5).
pub fn resolve_provenance(
    request: &ProvenanceRequest,
    lookup: impl Fn(&str) -> Option<String>,
) -> Provenance {
    let first = |explicit: &Option<String>, names: &[String]| {
        non_empty(explicit.clone())
            .or_else(|| names.iter().find_map(|name| non_empty(lookup(name))))
    };
    let component = component_key(&request.component);
    let release_names = [
        format!("{component}_SERVICE_RELEASE_ID"),
        format!("{component}_RELEASE_ID"),
        "SERVICE_RELEASE_ID".to_owned(),
    ];
    let environment_names = [
        "PLATFORM_ENVIRONMENT",
        "PLATFORM_PROFILE_ID",
        "PLATFORM_PROFILE",
    ]
    .map(str::to_owned);
    Provenance {
        service_release_id: first(&request.service_release_id, &release_names)
            .unwrap_or_else(|| "dev-local".to_owned()),
        environment: first(&request.environment, &environment_names)
            .unwrap_or_else(|| "unknown".to_owned()),
        config_revision: first(
            &request.config_revision,
            &["PLATFORM_CONFIG_REVISION".to_owned()],
        ),
        run_config_digest: non_empty(request.run_config_digest.clone()),
    }
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// Upper case, every run of other characters one underscore (contract 1.5).
fn component_key(component: &str) -> String {
    let words = component.split(|character: char| !character.is_ascii_alphanumeric());
    let words: Vec<String> = words
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_uppercase)
        .collect();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(component: &str) -> ProvenanceRequest {
        ProvenanceRequest {
            component: component.to_owned(),
            ..ProvenanceRequest::default()
        }
    }

    #[test]
    fn an_empty_environment_gives_the_defaults_and_omits_the_rest() {
        let provenance = resolve_provenance(&request("scenario runner"), |_| None);
        assert_eq!(
            serde_json::to_string(&provenance).unwrap(),
            r#"{"service_release_id":"dev-local","environment":"unknown"}"#
        );
    }

    #[test]
    fn the_component_variable_wins_over_the_general_one_and_blanks_are_skipped() {
        let lookup = |name: &str| match name {
            "INGESTION_GATE_SERVICE_RELEASE_ID" => Some("  ".to_owned()),
            "INGESTION_GATE_RELEASE_ID" => Some("r7".to_owned()),
            "SERVICE_RELEASE_ID" => Some("general".to_owned()),
            "PLATFORM_PROFILE" => Some("local".to_owned()),
            _ => None,
        };
        let provenance = resolve_provenance(&request("ingestion--gate"), lookup);
        assert_eq!(provenance.service_release_id, "r7");
        assert_eq!(provenance.environment, "local");
    }

    #[test]
    fn an_explicit_value_wins_over_the_environment() {
        let explicit = ProvenanceRequest {
            environment: Some("prod".to_owned()),
            config_revision: Some("c9".to_owned()),
            ..request("sr")
        };
        let provenance = resolve_provenance(&explicit, |_| Some("from env".to_owned()));
        assert_eq!(provenance.environment, "prod");
        assert_eq!(provenance.config_revision.as_deref(), Some("c9"));
        assert_eq!(provenance.service_release_id, "from env");
    }
}
