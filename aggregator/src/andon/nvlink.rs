//! NvlinkError: a link between GPUs makes errors, or is down. *(pure)*
//!
//! Single CRC errors are normal and are sent again. A link that must recover, or errors by the dozen or in floods, come
//! before a link that fails: a warning, while the job goes on. A link that was up and is down is a call.

use entrenar::unit::Timestamp;
use serde::{Deserialize, Serialize};

use super::counter::{Counter, Tally};
use super::finding::{finding, gpu_on_node};
use super::latch::Latch;
use super::rules::{Span, require, rule};
use super::watch::{Look, Telling, Watch};
use super::{Change, Evidence, Finding, Severity};

rule! {
    /// A link between GPUs makes errors, or is down.
    NvlinkErrorRule: NvlinkError, named "nvlink_error", Warning, true;
    /// How much a link that is down matters.
    down_severity: Severity = Severity::Critical;
    /// How much a link that is full of errors matters: a job that it slows is told apart.
    flood_severity: Severity = Severity::Warning;
    /// Recoveries within ten minutes that are a warning.
    recoveries: u32 = 1;
    /// CRC errors within ten minutes that are a warning.
    crc_errors: u32 = 20;
    /// CRC errors a second, over a minute, of a link that is full of them.
    crc_per_second: u32 = 100;
    /// How many looks in a row a link must be down.
    ticks: u32 = 2;
    /// How long it must be quiet, with all links up.
    settle: Span = Span::secs(600);
    => |this| {
        require(this.recoveries >= 1, "recoveries", "write at least 1")?;
        require(this.crc_errors >= 1, "crc_errors", "write at least 1")?;
        require(this.crc_per_second >= 1, "crc_per_second", "write at least 1")?;
        require((1..=100).contains(&this.ticks), "ticks", "write a number from 1 to 100")
    }
}

const MINUTE_MS: i64 = 60_000;

/// What is remembered of a GPU's links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct NvlinkState {
    latch: Latch,
    crc: Counter,
    recovery: Counter,
    crc_by_minute: Tally,
    recovery_by_minute: Tally,
    /// Links up: now, and most since the last reset.
    links: Option<(i16, i16)>,
    /// Looks in a row with fewer links than there were.
    down: u32,
    worst: Worst,
    xid: Option<u16>,
}

/// How bad it has been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Worst {
    #[default]
    Errors,
    Flood,
    Down,
}

impl Watch for NvlinkState {
    type Rule = NvlinkErrorRule;

    fn observe(&mut self, look: &Look<'_>, rule: &NvlinkErrorRule) -> Option<Change> {
        let sample = look.sample;
        let crc = self.crc.rise(sample.nvlink_crc);
        let recoveries = self.recovery.rise(sample.nvlink_recovery);
        if crc > 0 {
            self.crc_by_minute.add(look.at, MINUTE_MS, crc);
        }
        if recoveries > 0 {
            self.recovery_by_minute.add(look.at, MINUTE_MS, recoveries);
        }
        self.count_links(look);
        let is_down = self.down >= rule.ticks;
        if crc == 0 && recoveries == 0 && !is_down {
            return self.settle(look, rule);
        }
        let per_minute = u64::from(rule.crc_per_second) * 60;
        let floods = crc > 0 && u64::from(self.crc_by_minute.most(2)) >= per_minute;
        let errs = (crc > 0 && self.crc_by_minute.sum(10) >= u64::from(rule.crc_errors))
            || (recoveries > 0 && self.recovery_by_minute.sum(10) >= u64::from(rule.recoveries));
        if !is_down && !floods && !errs {
            return None;
        }
        let how = match (is_down, floods) {
            (true, _) => Worst::Down,
            (false, true) => Worst::Flood,
            (false, false) => Worst::Errors,
        };
        self.strike(look.at, how)
    }

    fn hear(&mut self, at: Timestamp, xid: u64, _: &NvlinkErrorRule) -> Option<Change> {
        let how = match xid {
            74 | 136 | 150 | 155 => Worst::Down,
            144..=149 => Worst::Errors,
            _ => return None,
        };
        self.xid = u16::try_from(xid).ok();
        self.strike(at, how)
    }

    fn severity(&self, rule: &NvlinkErrorRule) -> Severity {
        match self.worst {
            Worst::Errors => rule.severity,
            Worst::Flood => rule.severity.max(rule.flood_severity),
            Worst::Down => rule.down_severity,
        }
    }

    fn started_at(&self, at: Timestamp) -> Timestamp {
        self.latch.since().unwrap_or(at)
    }

    fn finding(&self, tell: &Telling<'_>, rule: &NvlinkErrorRule) -> Finding {
        let gpu = gpu_on_node(tell.gpu);
        let down = self.links.map_or(0, |(now, most)| most - now);
        let crc = self.crc_by_minute.sum(10);
        let recoveries = self.recovery_by_minute.sum(10);
        let summary = match (down, self.xid) {
            (1.., _) => format!("{down} NVLink of {gpu} is down"),
            (_, Some(xid)) if crc == 0 && recoveries == 0 => {
                format!("An NVLink of {gpu} fails: the driver logged XID {xid}")
            }
            _ => format!(
                "NVLinks of {gpu} make errors: {crc} CRC errors and {recoveries} recoveries in ten minutes"
            ),
        };
        let action = if self.worst == Worst::Down {
            "Drain the node, reset the GPUs at both ends and look at the fabric manager's log; reseat or replace the link if \
             it fails again."
        } else {
            "The job may go on. Reseat the link, or reset the GPUs at both ends, when the node is next idle."
        };
        let links = self.links.map(|(now, most)| {
            Evidence::new("links up", now.to_string()).against(most.to_string())
        });
        let mut found = finding(rule, tell.labels, summary, action)
            .with_some(links)
            .with(
                Evidence::new("CRC errors in ten minutes", crc.to_string())
                    .against(rule.crc_errors.to_string()),
            )
            .with(
                Evidence::new("recoveries in ten minutes", recoveries.to_string())
                    .against(rule.recoveries.to_string()),
            )
            .with_some(self.xid.map(|xid| Evidence::new("XID", xid.to_string())));
        found.culprits.push(tell.gpu.clone());
        found
    }
}

impl NvlinkState {
    fn count_links(&mut self, look: &Look<'_>) {
        if look.was_reset {
            (self.links, self.down) = (None, 0);
        }
        let Some(now) = look.sample.nvlink_links else {
            return;
        };
        let now = now.clamp(0, i64::from(i16::MAX)) as i16;
        let most = self.links.map_or(now, |(_, most)| most.max(now));
        self.links = Some((now, most));
        self.down = if now < most {
            self.down.saturating_add(1)
        } else {
            0
        };
    }

    fn strike(&mut self, at: Timestamp, how: Worst) -> Option<Change> {
        let worse = how > self.worst;
        self.worst = self.worst.max(how);
        let change = self.latch.strike(at);
        change.or(worse.then_some(Change::Updated))
    }

    fn settle(&mut self, look: &Look<'_>, rule: &NvlinkErrorRule) -> Option<Change> {
        let change = self.latch.settle(look.at, rule.settle.0);
        if change.is_some() {
            (self.worst, self.xid) = (Worst::Errors, None);
        }
        change
    }
}
