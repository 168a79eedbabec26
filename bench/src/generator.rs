//! The other end of [`crate::load`]: starts the fleet as a process of its own and gives it orders.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

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
        Self::start_as(SUBCOMMAND, plan)
    }

    /// Starts this program again as another kind of fleet, which says `connected` and takes the same orders.
    pub fn start_as(subcommand: &str, plan: &impl Serialize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([subcommand, &serde_json::to_string(plan)?])
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

    /// Of each agent, how many records with ticks the aggregator has said to be durable; in the order of their numbers.
    pub fn acknowledged(&mut self) -> Result<Vec<u64>> {
        writeln!(self.orders, "acknowledged")?;
        self.orders.flush()?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }

    /// Waits until all that was owed when it connected is sent.
    pub fn settle(&mut self, within: Duration) -> Result<()> {
        let began = entrenar::clock::instant();
        loop {
            let owed = self.tally()?.owed;
            if owed == 0 {
                return Ok(());
            }
            if began.elapsed() > within {
                bail!(
                    "the load still owes {owed} records after {} s",
                    within.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(500));
        }
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
