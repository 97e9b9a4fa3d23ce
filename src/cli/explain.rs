//! `wellspring explain`: what a reason code means, and what to do about it.

use super::output::{OutputFormat, TableView, print_json, print_table, print_text};
use super::{CliContext, Failure, Outcome};
use serde_json::{Value, json};
use wellspring_domain::reason_codes::{ReasonCode, all, find};

const EXAMPLES: &str = "\
Examples:
  wellspring explain PACK_NOT_SEALED           one code
  wellspring explain OUTPUT_UNKNOWN:an_output  as it was printed, with its detail
  wellspring explain --all                     every code
  wellspring --format json explain --all       the same for a program";

/// Arguments of `wellspring explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// Codes as they were printed.
    #[arg(value_name = "CODE", required_unless_present = "all")]
    codes: Vec<String>,
    /// Every code.
    #[arg(long, conflicts_with = "codes")]
    all: bool,
}

/// Runs the command.
pub fn run(args: ExplainArgs, ctx: &CliContext) -> anyhow::Result<Outcome> {
    if args.all {
        let rows: Vec<_> = all().collect();
        match ctx.format {
            OutputFormat::Json => print_json(&json_of(&rows))?,
            OutputFormat::Table => print_table(&table_of(&rows))?,
        }
        return Ok(Outcome::Ok);
    }
    let rows: Result<Vec<_>, Failure> = args.codes.iter().map(|code| row_of(code)).collect();
    let rows = rows?;
    match ctx.format {
        OutputFormat::Json => print_json(&json_of(&rows))?,
        OutputFormat::Table => print_text(&texts_of(&rows))?,
    }
    Ok(Outcome::Ok)
}

fn row_of(printed: &str) -> Result<&'static ReasonCode, Failure> {
    find(printed).ok_or_else(|| {
        let sentence = format!("'{printed}' is not a code of this program");
        Failure::new("REASON_CODE_UNKNOWN", sentence).hint(match similar(printed).as_slice() {
            [] => "wellspring explain --all".to_owned(),
            similar => format!("similar codes: {}", similar.join(", ")),
        })
    })
}

/// Codes that share their words with what was asked for.
fn similar(printed: &str) -> Vec<&'static str> {
    let asked = printed.to_ascii_uppercase();
    let words: Vec<&str> = asked.split(['_', '-']).filter(|w| w.len() > 2).collect();
    let shared = |row: &&ReasonCode| {
        let known = row.code.split('_');
        let hits = known.filter(|word| words.contains(word)).count();
        hits > 0 && hits + 1 >= words.len()
    };
    all().filter(shared).map(|row| row.code).take(6).collect()
}

fn speakers(row: &ReasonCode) -> String {
    let names: Vec<_> = row.said_by.iter().map(|speaker| speaker.name()).collect();
    names.join(", ")
}

fn texts_of(rows: &[&ReasonCode]) -> String {
    let texts = rows.iter().map(|row| {
        let mut table = TableView::pairs();
        table.row(["code", row.code]);
        table.row(["said by", &speakers(row)]);
        table.row(["class", row.class.name()]);
        table.row(["meaning", row.meaning]);
        table.row(["what to do", row.action]);
        table.render()
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn table_of(rows: &[&ReasonCode]) -> TableView {
    let mut table = TableView::left(["CODE", "CLASS", "MEANING", "WHAT TO DO"]);
    for row in rows {
        table.row([row.code, row.class.name(), row.meaning, row.action]);
    }
    table
}

fn json_of(rows: &[&ReasonCode]) -> Vec<Value> {
    let row_json = |row: &&ReasonCode| {
        let said_by: Vec<_> = row.said_by.iter().map(|speaker| speaker.name()).collect();
        json!({
            "code": row.code,
            "said_by": said_by,
            "class": row.class.name(),
            "meaning": row.meaning,
            "what_to_do": row.action,
        })
    };
    rows.iter().map(row_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_names_the_ones_like_it() {
        let failure = row_of("PACK_SEALED").unwrap_err();
        assert_eq!(failure.code(), "REASON_CODE_UNKNOWN");
        assert!(similar("PACK_SEALED").contains(&"PACK_NOT_SEALED"));
        assert!(similar("xyz").is_empty());
    }

    #[test]
    fn one_code_is_told_as_a_text_with_a_way_out() {
        let text = texts_of(&[row_of("gate_pass_missing").unwrap()]);
        for part in ["GATE_PASS_MISSING", "fix the cause", "what to do", "gate"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_whole_table_is_json_for_programs() {
        let rows: Vec<_> = all().collect();
        let json = json_of(&rows);
        assert_eq!(json.len(), rows.len());
        assert!(json.iter().all(|row| row["what_to_do"].is_string()));
    }
}
