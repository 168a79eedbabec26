//! A goal, what was reached, and how far from it the peers are.

use crate::report::Section;

/// A row: one kind of work, in one unit, less being better.
pub struct Goal {
    pub work: String,
    pub unit: &'static str,
    pub ours: f64,
    /// Prometheus, then VictoriaMetrics; `None`: not measured in this run.
    pub peers: [Option<f64>; 2],
    /// What must be reached, and what is meant to be; `None`: no goal is set.
    pub floor: Option<f64>,
    pub reach: Option<f64>,
}

/// Shows rows beside their goals.
pub fn table(section: &mut Section, goals: &[Goal]) {
    let head = [
        "work",
        "unit",
        "ours",
        "Prometheus",
        "VictoriaMetrics",
        "ours : Prometheus",
        "ours : VM",
        "floor",
        "reach",
        "reached",
    ];
    let rows: Vec<_> = goals.iter().map(Goal::row).collect();
    section.table(head, &rows);
}

impl Goal {
    fn row(&self) -> [String; 10] {
        let goal = |goal: Option<f64>| goal.map_or("–".into(), number);
        let [prometheus, victoria] = self.peers.map(|peer| peer.map_or("–".into(), number));
        let [by_prometheus, by_victoria] = self.peers.map(|peer| ratio(self.ours, peer));
        [
            self.work.clone(),
            self.unit.into(),
            format!("**{}**", number(self.ours)),
            prometheus,
            victoria,
            by_prometheus,
            by_victoria,
            goal(self.floor),
            goal(self.reach),
            self.verdict().into(),
        ]
    }

    fn verdict(&self) -> &'static str {
        let within = |goal: Option<f64>| goal.map(|goal| self.ours <= goal);
        match (within(self.floor), within(self.reach)) {
            (None, None) => "–",
            (_, Some(true)) => "reach",
            (Some(true), _) => "floor",
            _ => "**missed**",
        }
    }
}

/// `1 : 8.3` where ours is the smaller.
fn ratio(ours: f64, peer: Option<f64>) -> String {
    match peer {
        Some(peer) if ours > 0.0 && peer >= ours => format!("1 : {}", number(peer / ours)),
        Some(peer) if peer > 0.0 => format!("{} : 1", number(ours / peer)),
        _ => "–".into(),
    }
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(ours: f64) -> Goal {
        Goal {
            work: String::new(),
            unit: "µs",
            ours,
            peers: [Some(5.0), None],
            floor: Some(0.5),
            reach: Some(0.3),
        }
    }

    #[test]
    fn a_goal_that_is_missed_says_so() {
        assert_eq!(goal(0.29).verdict(), "reach");
        assert_eq!(goal(0.4).verdict(), "floor");
        assert_eq!(goal(0.6).verdict(), "**missed**");
    }

    #[test]
    fn what_was_not_measured_has_no_ratio() {
        let row = goal(0.5).row();
        assert_eq!(row[5..7], ["1 : 10.0".to_owned(), "–".to_owned()]);
        assert_eq!(ratio(10.0, Some(5.0)), "2.00 : 1");
    }
}
