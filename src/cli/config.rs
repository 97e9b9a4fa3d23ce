//! `wellspring config`: what is in force, where it comes from, and what is wrong with it.

use super::context::settings_failure;
use super::output::{TableView, print_result};
use super::progress::say;
use super::{CliContext, Outcome};
use crate::settings::Settings;
use crate::settings::layers::EffectiveValue;
use crate::settings::problem::Problem;
use serde::Serialize;
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  wellspring config show                        every value in force and its origin
  wellspring config show wiring.gate            only keys below wiring.gate
  wellspring --profile prod config check        all problems of a profile at once
  wellspring --set wiring.gate.batch_events_max=500 config show wiring.gate

Order: default < profile < environment < flag. Any key can be set by a variable named after it:
wiring.gate.flush_bytes_max is WELLSPRING_WIRING_GATE_FLUSH_BYTES_MAX. Secrets are shown as ***.";

/// Arguments of `wellspring config`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Show every value in force and where it comes from.
    Show {
        /// Only keys that start with this.
        #[arg(value_name = "PREFIX")]
        prefix: Option<String>,
    },
    /// List every problem of the profile and of the files it names.
    Check,
}

/// Runs the command.
pub fn run(args: ConfigArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    match args.command {
        ConfigCommand::Show { prefix } => show(ctx, prefix.as_deref().unwrap_or_default()),
        ConfigCommand::Check => check(ctx),
    }
}

#[derive(Serialize)]
struct ConfigView<'a> {
    profile: String,
    profile_id: &'a str,
    values: Vec<&'a EffectiveValue>,
    problems: &'a [Problem],
}

fn show(ctx: &CliContext, prefix: &str) -> anyhow::Result<Outcome> {
    let (settings, problems) = read(ctx)?;
    let values = settings
        .effective
        .iter()
        .filter(|value| value.key.starts_with(prefix))
        .collect();
    let view = view_of(&settings, values, &problems);
    print_result(ctx.format, &view, || {
        let mut table = TableView::left(["KEY", "VALUE", "ORIGIN"]);
        for value in &view.values {
            table.row([
                value.key.clone(),
                shown(&value.value),
                value.origin.to_string(),
            ]);
        }
        table
    })?;
    say_problems(&problems);
    Ok(if problems.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Failed
    })
}

fn check(ctx: &CliContext) -> anyhow::Result<Outcome> {
    let (settings, mut problems) = read(ctx)?;
    problems.extend(ref_problems(&settings));
    let view = view_of(&settings, Vec::new(), &problems);
    print_result(ctx.format, &view, || {
        let mut table = TableView::pairs();
        table.row(["profile", &view.profile]);
        table.row(["profile id", view.profile_id]);
        table.row(["problems", &problems.len().to_string()]);
        for problem in &problems {
            table.row([
                problem.code.as_str(),
                &format!("{}: {}", problem.key, problem.sentence),
            ]);
        }
        table
    })?;
    Ok(if problems.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Failed
    })
}

fn read(ctx: &CliContext) -> anyhow::Result<(Settings, Vec<Problem>)> {
    let source = ctx.profile().map_err(settings_failure)?;
    Settings::read(&source, &ctx.layers()).map_err(settings_failure)
}

/// Files the profile names that cannot be found or read.
pub fn ref_problems(settings: &Settings) -> Vec<Problem> {
    let policy = &settings.policy;
    let wiring = &settings.wiring;
    let refs = [
        (
            "policy.partitioning_profiles_ref",
            Some(&policy.partitioning_profiles_ref),
        ),
        ("policy.schema_policy_ref", Some(&policy.schema_policy_ref)),
        ("policy.class_map_ref", Some(&policy.class_map_ref)),
        (
            "policy.traffic_output_ids_ref",
            policy.traffic_output_ids_ref.as_ref(),
        ),
        (
            "policy.context_output_ids_ref",
            policy.context_output_ids_ref.as_ref(),
        ),
        (
            "policy.context_output_ids_baseline_ref",
            policy.context_output_ids_baseline_ref.as_ref(),
        ),
        (
            "policy.scenario_policy_ref",
            Some(&policy.scenario_policy_ref),
        ),
        (
            "wiring.engine_catalogue_path",
            Some(&wiring.engine_catalogue_path),
        ),
        ("wiring.gate_map_path", Some(&wiring.gate_map_path)),
        (
            "wiring.scenario_wiring_ref",
            Some(&wiring.scenario_wiring_ref),
        ),
    ];
    let texts = [
        (
            "wiring.wsp_producer.allowlist_ref",
            wiring.wsp_producer.allowlist_ref.as_ref(),
        ),
        (
            "wiring.security.auth_allowlist_ref",
            wiring.security.auth_allowlist_ref.as_ref(),
        ),
    ];
    let named = |key: &str, problem: &Problem| {
        Problem::new(problem.code.clone(), key, problem.sentence.clone())
    };
    let mut problems = Vec::new();
    for (key, reference) in refs.into_iter().filter_map(|(key, r)| Some((key, r?))) {
        if let Err(error) = settings.load_ref_value(reference) {
            problems.extend(error.problems().iter().map(|problem| named(key, problem)));
        }
    }
    for (key, reference) in texts.into_iter().filter_map(|(key, r)| Some((key, r?))) {
        if let Err(error) = settings.load_ref_text(reference) {
            problems.extend(error.problems().iter().map(|problem| named(key, problem)));
        }
    }
    problems
}

fn view_of<'a>(
    settings: &'a Settings,
    values: Vec<&'a EffectiveValue>,
    problems: &'a [Problem],
) -> ConfigView<'a> {
    ConfigView {
        profile: settings.profile_shown(),
        profile_id: &settings.profile_id,
        values,
        problems,
    }
}

fn say_problems(problems: &[Problem]) {
    for problem in problems {
        say(&format!("problem: {problem}"));
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
