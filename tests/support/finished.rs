//! What a command left behind: exit code and both streams.

use serde_json::Value;

/// A command that ended.
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The result.
    pub stdout: String,
    /// What was said to a person.
    pub stderr: String,
}

impl Finished {
    /// The same, after asserting that it ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.everything());
        self
    }

    /// The result as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.everything()))
    }

    /// Asserts the exit code, the reason code and that a human sentence follows it.
    #[track_caller]
    pub fn refused(&self, exit: i32, code: &str) -> &Self {
        assert_eq!(self.code, Some(exit), "{code}: {}", self.everything());
        let start = format!("error: {code}");
        let line = self.stderr.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no {start}: {}", self.everything()));
        assert_is_sentence(line.trim_start_matches(&start), line);
        self
    }

    /// Both streams and the exit code, for a failed assertion.
    pub fn everything(&self) -> String {
        let Finished {
            code,
            stdout,
            stderr,
        } = self;
        format!("exit {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A human sentence has at least two words beside the code.
#[track_caller]
pub fn assert_is_sentence(text: &str, whole: &str) {
    let words = text
        .split_whitespace()
        .filter(|word| word.chars().any(char::is_lowercase));
    assert!(words.count() >= 2, "a code without a sentence: {whole}");
}
