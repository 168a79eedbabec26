//! The other end of [`crate::load`]: starts the fleet as a process of its own and gives it orders.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::load::{Plan, SUBCOMMAND, Tally};

/// A fleet that reports.
pub struct Generator {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Generator {
    /// Starts a fleet; it reports when this returns.
    pub fn start(plan: &Plan) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([SUBCOMMAND, &serde_json::to_string(plan)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the load")?;
        let orders = child.stdin.take().context("a pipe for orders")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe for answers")?);
        let mut generator = Self {
            child,
            orders,
            answers,
        };
        match generator.answer()?.as_str() {
            "connected" => Ok(generator),
            other => bail!("the load said {other:?} instead of `connected`"),
        }
    }

    /// What was sent so far.
    pub fn tally(&mut self) -> Result<Tally> {
        writeln!(self.orders, "tally")?;
        self.orders.flush()?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }

    /// Stops sending, waits for the last acknowledgements, and says what it came to.
    pub fn stop(mut self) -> Result<Tally> {
        writeln!(self.orders, "stop")?;
        self.orders.flush()?;
        let tally = serde_json::from_str(&self.answer()?)?;
        self.child.wait()?;
        Ok(tally)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the load ended early");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
