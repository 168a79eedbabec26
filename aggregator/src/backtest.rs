//! A trace told to the engine: the same rules, in the trace's own time, as fast as the machine allows. *(pure)*
//!
//! Rows come in, in order of arrival; what the live line would have heard goes to the engine, and what the engine says
//! becomes one [`Incident`] a report. Nothing here knows files or clocks: whoever reads the trace hands blocks over.
//!
//! How to read the folder: `clock` is the fleet's clock, `node` puts the rows of a node together into ticks, `feed`
//! tells them to the engine, `report` turns transitions into incidents.

mod clock;
mod feed;
mod incident;
mod node;
mod report;
#[cfg(test)]
mod tests;

use entrenar::trace::Block;

use crate::andon::RuleBook;
use feed::Feed;
pub use feed::Figures;
pub use incident::{Culprit, Incident, Place, ScopeView};
pub use report::Reports;

/// A trace on its way through the engine.
pub struct Backtest {
    feed: Feed,
}

/// What a trace came to.
#[derive(Debug)]
pub struct Outcome {
    /// Incidents in order of firing.
    pub incidents: Vec<Incident>,
    /// What was read.
    pub figures: Figures,
}

impl Backtest {
    /// An engine that knows nothing yet, with these rules.
    pub fn new(rules: impl Into<RuleBook>) -> Self {
        Self {
            feed: Feed::new(rules.into()),
        }
    }

    /// The next rows of the trace. Their values are taken out of the block.
    pub fn take(&mut self, block: &mut Block) {
        self.feed.take(block);
    }

    /// The trace is over: time stops at its last row.
    pub fn finish(self) -> Outcome {
        self.feed.finish()
    }
}
