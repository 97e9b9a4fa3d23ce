//! A running daemon: started, asked, stopped or killed by its own process id.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Site;

/// How long a daemon may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    err: tempfile::NamedTempFile,
    /// Where it listens.
    pub url: String,
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Time from the signal to the end.
    pub took: Duration,
}

impl Daemon {
    /// `gate serve` on a free port.
    pub fn gate(site: &Site) -> Self {
        Daemon::start(site, &["gate", "serve", "--port", "0"])
    }

    /// Any command that listens; returns when it does.
    pub fn start(site: &Site, args: &[&str]) -> Self {
        let mut daemon = Daemon::spawn(site, args);
        daemon.url = daemon.wait_for_address();
        daemon
    }

    /// Any command that runs for a while; returns at once.
    pub fn spawn(site: &Site, args: &[&str]) -> Self {
        Daemon::spawn_with(site, args, &[])
    }

    /// `gate serve` on a free port with environment variables; its end, and what it said, when that comes
    /// before it listens.
    pub fn gate_with(site: &Site, env: &[(&str, &str)]) -> Result<Self, (Ended, String)> {
        let mut daemon = Daemon::spawn_with(site, &["gate", "serve", "--port", "0"], env);
        match daemon.try_address() {
            Ok(url) => {
                daemon.url = url;
                Ok(daemon)
            }
            Err(_status) => {
                let ended = daemon.wait_for_end(Duration::ZERO);
                Err((ended, daemon.stderr()))
            }
        }
    }

    fn spawn_with(site: &Site, args: &[&str], env: &[(&str, &str)]) -> Self {
        let err = tempfile::NamedTempFile::new_in(site.path()).unwrap();
        let mut command = site.program();
        command.envs(env.iter().copied());
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(File::create(err.path()).unwrap());
        let child = command.spawn().expect("the program starts");
        Daemon {
            child,
            err,
            url: String::new(),
        }
    }

    fn wait_for_address(&mut self) -> String {
        self.try_address().unwrap_or_else(|status| {
            let said = self.stderr();
            panic!("the daemon ended with {status} before it listened: {said}")
        })
    }

    fn try_address(&mut self) -> Result<String, ExitStatus> {
        let end = Instant::now() + START_TIMEOUT;
        loop {
            let said = self.stderr();
            let line = said
                .lines()
                .find_map(|line| line.split_once("wellspring listens on "));
            if let (Some((_, url)), true) = (line, said.ends_with('\n')) {
                return Ok(url.trim().to_owned());
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(status);
            }
            assert!(Instant::now() < end, "the daemon does not listen: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything it said.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.err.path()).unwrap()).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// SIGTERM, then the end.
    pub fn terminate(mut self) -> Ended {
        self.end_by(Signal::TERM)
    }

    /// SIGTERM, then everything it said.
    pub fn terminate_and_tell(mut self) -> String {
        self.end_by(Signal::TERM);
        self.stderr()
    }

    /// Waits for an end that comes by itself.
    pub fn wait_for_end(&mut self, at_most: Duration) -> Ended {
        self.ended(Instant::now(), at_most)
    }

    /// SIGKILL, as a crash would.
    pub fn kill(mut self) -> Ended {
        self.end_by(Signal::KILL)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    fn end_by(&mut self, signal: Signal) -> Ended {
        let began = Instant::now();
        self.signal(signal);
        self.ended(began, Duration::from_secs(30))
    }

    fn ended(&mut self, began: Instant, at_most: Duration) -> Ended {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let took = began.elapsed();
                return Ended {
                    code: status.code(),
                    signal: status.signal(),
                    took,
                };
            }
            let late = began.elapsed() > at_most;
            assert!(!late, "still running after {at_most:?}: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that failed half way must not leave a daemon behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
