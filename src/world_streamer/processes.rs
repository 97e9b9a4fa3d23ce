//! Which processes of this machine are alive, told apart from later ones with the same id.

use std::fs;

/// Clock ticks a second in `/proc`; fixed at 100 for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// When the running process was created, in seconds since the epoch; `None` when it is not running
/// (a zombie is not).
pub fn created_at(pid: u64) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, ticks) = state_and_start(&stat)?;
    let running = !matches!(state, 'Z' | 'X');
    running.then_some(())?;
    Some(boot_seconds()? + ticks as f64 / TICKS_PER_SECOND)
}

/// The state and the start time in ticks after boot. The command name may hold anything, also
/// parentheses, so fields are counted after the last one.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_running_and_one_that_cannot_exist_is_not() {
        let created = created_at(u64::from(std::process::id())).unwrap();
        assert!(created > 1_000_000_000.0);
        assert_eq!(
            created_at(created_at(u64::from(std::process::id())).unwrap() as u64),
            None
        );
    }

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(
            state_and_start(&format!("7 (a b) c)) {tail}")),
            Some(('S', 4242))
        );
        assert_eq!(state_and_start("7 (cut"), None);
    }
}
