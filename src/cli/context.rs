//! What every command gets: the global options, resolved once.

use super::output::OutputFormat;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Options every command understands, before or after the command's name.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalArgs {
    /// Profile: a YAML file, or the name of a shipped one (local, local_parity, dev, prod).
    #[arg(
        long,
        global = true,
        value_name = "FILE|NAME",
        env = "WELLSPRING_PROFILE"
    )]
    pub profile: Option<String>,
    /// Folder that holds all runs [default: the profile's object store root, `runs`].
    #[arg(long, global = true, value_name = "RUNS_ROOT")]
    pub root: Option<PathBuf>,
    /// How results are written [default: table; contract commands in a pipe: json].
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub format: Option<OutputFormat>,
}

/// The global options and what they lead to.
#[derive(Debug)]
pub struct CliContext {
    /// How results are written.
    pub format: OutputFormat,
    args: GlobalArgs,
}

impl CliContext {
    /// Takes the parsed options; nothing is read yet.
    pub fn new(args: GlobalArgs) -> Self {
        CliContext {
            format: args.format.unwrap_or(OutputFormat::Table),
            args,
        }
    }

    /// The format of a command whose JSON other programs read: JSON unless a person is looking.
    pub fn contract_format(&self) -> OutputFormat {
        match self.args.format {
            Some(format) => format,
            None if std::io::stdout().is_terminal() => OutputFormat::Table,
            None => OutputFormat::Json,
        }
    }

    /// The folder that holds all runs.
    pub fn root(&self) -> PathBuf {
        self.args
            .root
            .clone()
            .unwrap_or_else(|| PathBuf::from("runs"))
    }
}
