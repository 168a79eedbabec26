//! From trouble to the message: a sample or an XID, through wire, rules, database and outbox, to a webhook.

mod center;
mod node;
mod sink;
mod stream;

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use self::center::Center;
use self::stream::Trouble;
use crate::measure::quantile;
use crate::report::Section;

/// Of each kind, one at a time.
const TRIALS: usize = 100;

/// Receivers are told at most 10 messages at once and 20 a minute: with so many of them none waits for its turn.
const RECEIVERS: usize = 20;

/// All ways.
pub fn run() -> Result<()> {
    let center = Center::start()?;
    let lost = stream::trials(&center, Trouble::Lost)?;
    center.stop()?;
    let center = Center::start()?;
    let xid = stream::trials(&center, Trouble::Xid)?;
    center.stop()?;
    let center = Center::start()?;
    let through_agent = node::trials(&center)?;
    let background = center.stop()?;

    let mut section = Section::default();
    section.say(format!(
        "{TRIALS} trials each, one at a time and at any phase of a commit, to a local webhook, while {background} nodes \
         of 8 GPUs report at 1 Hz. In the aggregator: from writing a message to the gRPC stream to reading the webhook's \
         request. The whole way: from the moment that the driver's library has the XID, through a real agent, to the \
         same. A decision is recorded (`synchronous=FULL`) before it is told: one sync of the disk is part of the time, \
         and a slow disk makes it longer. The rules file takes one tick for a lost GPU instead of two, so that no hold is \
         part of it, and groups nothing: by default a second XID on a node within a minute joins the first one's message."
    ));
    let goal = "median < 50 ms, p99 < 200 ms";
    section.table(
        ["from", "trials", "median", "p99", "max", "goal"],
        &[
            row("a sample (GPU lost), in the aggregator", &lost, goal),
            row("an XID event, in the aggregator", &xid, goal),
            row(
                "NVML's XID event, the whole way",
                &through_agent,
                "< 500 ms",
            ),
        ],
    );
    section.publish("latency")
}

fn row(what: &str, times: &[Duration], goal: &str) -> [String; 6] {
    let ms = |share| {
        let time = quantile(times, share).unwrap_or_default();
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    };
    [
        what.to_owned(),
        times.len().to_string(),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        goal.to_owned(),
    ]
}

/// A pause before a trial, of another length each time, so that trials fall on every phase of what is periodic.
fn pause(trial: usize) {
    sleep(Duration::from_millis(60 + trial as u64 * 37 % 100));
}
