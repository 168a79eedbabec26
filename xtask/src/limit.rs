//! Waiting for a command, and not for ever: a test that hangs is to fail where its output can still be read.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};

/// Between two looks at whether it has ended.
const MOMENT: Duration = Duration::from_millis(100);

/// The status with which it ended. Fails when it has not after `limit`: then it is killed, with all that it started.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let mut left = limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let Some(less) = left.checked_sub(MOMENT) else {
            break;
        };
        left = less;
        sleep(MOMENT);
    }
    kill_all(child.id())?;
    child.wait()?;
    bail!(
        "still running after {} minutes, and killed: the last lines above say what was `running for over 60 seconds`",
        limit.as_secs() / 60
    )
}

/// Kills a process and its descendants. They are stopped one after the other first: who is stopped starts nobody while
/// we look.
fn kill_all(pid: u32) -> Result<()> {
    let mut doomed = vec![pid];
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        signal("-STOP", &[parent])?;
        let children = parents()?.into_iter().filter(|(_, of)| *of == parent);
        doomed.extend(children.map(|(child, _)| child));
        next += 1;
    }
    signal("-KILL", &doomed)
}

fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let pids = pids.iter().map(u32::to_string);
    // One that has ended meanwhile is what we want.
    Command::new("kill").arg(name).args(pids).status()?;
    Ok(())
}

/// Of each process, who started it.
fn parents() -> Result<BTreeMap<u32, u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name before it may have anything in it.
            let (_, fields) = stat.rsplit_once(')')?;
            let parent = fields.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn what_does_not_end_is_killed_with_all_that_it_started() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 600 & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut held_by_both = shell.stdout.take().expect("piped");
        assert!(wait(&mut shell, Duration::ZERO).is_err());
        // Comes to an end when the last of them is gone.
        let said = std::io::copy(&mut held_by_both, &mut std::io::sink());
        assert_eq!(said.expect("read"), 0);
    }

    #[test]
    fn what_ends_has_its_status() {
        let mut child = Command::new("false").spawn().expect("false");
        let status = wait(&mut child, Duration::from_mins(1));
        assert_eq!(status.expect("it ended").code(), Some(1));
    }
}
