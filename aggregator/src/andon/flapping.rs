//! NodeFlapping: a node falls silent and comes back, again and again. *(pure)*
//!
//! Each time is too short for a call or has its own; together they are a loose cable, a failing network card, or an
//! agent that is killed for its memory. While a node flaps, only a long silence of it calls anyone.

use entrenar::gpu::NodeId;
use entrenar::report::Labels;
use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{finding, time_of_day};
use super::rules::{Span, require, rule};
use super::{Evidence, Finding};

rule! {
    /// A node falls silent and comes back, again and again.
    NodeFlappingRule: NodeFlapping, named "node_flapping", Warning, true;
    /// So many times
    times: u32 = 3;
    /// within this time.
    within: Span = Span::secs(600);
    /// How long it must stay for it to be over.
    settle: Span = Span::secs(1800);
    /// Meanwhile the node is called lost only after a silence of this length.
    patience: Span = Span::secs(120);
    => |this| {
        require((2..=MOST_TIMES as u32).contains(&this.times), "times", "write a number from 2 to 16")?;
        require(this.within >= Span::secs(30), "within", "write at least 30s")
    }
}

/// Most returns that are remembered of a node; older ones are forgotten.
const MOST_TIMES: usize = 16;

/// When a node came back, each time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Returns {
    times: Vec<Timestamp>,
    pub(super) is_up: bool,
}

impl Returns {
    /// The node came back from a silence. True when that is once too often.
    pub(super) fn note(&mut self, at: Timestamp, rule: &NodeFlappingRule) -> bool {
        self.times
            .retain(|time| (0..=rule.within.millis()).contains(&(at.0 - time.0)));
        if self.times.len() == MOST_TIMES {
            self.times.remove(0);
        }
        self.times.push(at);
        let often = self.times.len() >= rule.times as usize;
        let begins = often && !self.is_up;
        self.is_up |= often && rule.enabled;
        begins && rule.enabled
    }

    /// Whether it has stayed for long enough; asked while it is up.
    pub(super) fn is_over(&self, now: Timestamp, rule: &NodeFlappingRule) -> bool {
        let last = self.times.last();
        last.is_none_or(|last| now.0 - last.0 >= rule.settle.millis())
    }

    /// The first return that is remembered.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.times.first().copied()
    }

    pub(super) fn finding(&self, id: &NodeId, labels: &Labels, rule: &NodeFlappingRule) -> Finding {
        let n = self.times.len();
        let first = self.since().map_or("an unknown time".into(), time_of_day);
        let summary = format!("Node {id} fell silent and came back {n} times since {first}");
        let action = "Look at the node's network (cable, card, switch port), its load, and whether its agent is killed \
                      and restarted.";
        finding(rule, labels, summary, action).with(
            Evidence::new("returns", n.to_string())
                .against(format!("{} within {}", rule.times, rule.within)),
        )
    }
}
