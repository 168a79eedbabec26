//! What happens to a whole fleet at once, and is nobody's fault. *(pure)*

use super::{Draft, LabelSeverity, Silence, Stage};
use crate::sim::effect::What;
use crate::sim::job::SimMillis;
use crate::sim::plan::FOREVER;

impl Stage {
    /// One decision about the power of the whole fleet: each job may seem slow, and nobody must be told so.
    pub(crate) fn cap_all(&mut self) {
        let from = self.moment(0.25, 0.6);
        let share = self.dice.between(0.66, 0.78);
        let watts = (share * self.board().power_limit_watts).round();
        let nodes: Vec<u32> = (0..self.n_nodes()).collect();
        for gpu in self.all_of(&nodes) {
            let begins = from + self.span(0.0, 20.0);
            self.strike(gpu, begins, FOREVER, What::Capped { watts });
        }
        for job in self.job_refs() {
            let kinds = ["JobSlow", "PowerCapLoss", "PowerLimit"];
            let label = Draft::new("N21", &kinds, LabelSeverity::Warning)
                .lasts(from, self.end())
                .whole_job(self, job)
                .optional();
            self.sign(label);
        }
    }

    /// Every agent stops for 3–20 s, one or two at a time, in any order.
    pub(crate) fn upgrade_all(&mut self, from: SimMillis) {
        let mut nodes: Vec<u32> = (0..self.n_nodes()).collect();
        self.dice.shuffle(&mut nodes);
        let mut at = from;
        for node in nodes {
            let back = at + self.span(3.0, 20.0);
            self.silence(node, at, back, Silence::Goodbye);
            at += self.span(4.0, 20.0);
        }
    }

    /// What a third or more of the agents say arrives up to a minute late.
    pub(crate) fn arrive_late(&mut self) {
        let from = self.moment(0.1, 0.85);
        let to = from + self.span(5.0, 60.0);
        let mut nodes: Vec<u32> = (0..self.n_nodes()).collect();
        let share = self.dice.between(0.3, 1.0);
        self.dice.shuffle(&mut nodes);
        nodes.truncate(((nodes.len() as f64 * share) as usize).max(1));
        for &node in &nodes {
            self.delay(node, from, to);
        }
        let kinds = ["MonitoringFault", "NetworkFault"];
        let label = Draft::new("N26", &kinds, LabelSeverity::Warning)
            .lasts(from, to + 60_000)
            .nodes(&nodes)
            .fleet()
            .optional();
        self.sign(label);
    }

    /// A hot afternoon: every GPU gets 5–7 K warmer over the whole trace.
    pub(crate) fn warm_up_all(&mut self) {
        let from = Self::at(0.0);
        let ramp_ms = self.end() - from;
        let nodes: Vec<u32> = (0..self.n_nodes()).collect();
        for gpu in self.all_of(&nodes) {
            let kelvin = self.dice.between(5.0, 7.0);
            self.strike(gpu, from, FOREVER, What::Warm { kelvin, ramp_ms });
        }
    }
}
