//! The bench program started again as a process of its own: clients, programs that get killed, memory of one job.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// First word of a child's command line.
const WORD: &str = "bench-child";

/// The role and words of this process when it is a child.
pub fn role() -> Option<(String, Vec<String>)> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some(WORD) {
        return None;
    }
    Some((words.next().expect("a role"), words.collect()))
}

/// A child that runs.
pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts this program again in a role.
    pub fn start(role: &str, words: &[String]) -> Running {
        let program = std::env::current_exe().expect("this program's path");
        let mut command = Command::new(program);
        command.arg(WORD).arg(role).args(words);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child process");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Running { child, lines }
    }

    /// The next line the child prints; empty at its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    /// Waits until it ends well.
    pub fn finish(mut self) {
        let status = self.child.wait().expect("a child that ends");
        assert!(status.success(), "the child failed: {status}");
    }

    /// Kills it as if the machine had: SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("a child to kill");
        self.child.wait().expect("a child that ends");
    }
}
